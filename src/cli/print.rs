//! Standard output.

use std::io::Write as _;

use super::error::CliError;

/// One line on standard output.
pub fn print(line: &str) -> Result<(), CliError> {
    writeln!(std::io::stdout(), "{line}").map_err(CliError::Stdout)
}
