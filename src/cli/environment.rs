//! The environment variables that choose how kernels compute, checked before anything relies on them.

use super::error::CliError;
use crate::kernels::{Arithmetic, Level};

/// Makes sure that what they name is there.
///
/// # Errors
/// [`CliError::Usage`] with what there is.
pub fn check() -> Result<(), CliError> {
    one_of(Level::VARIABLE, &Level::available().iter().map(|level| level.name()).collect::<Vec<_>>())?;
    one_of(Arithmetic::VARIABLE, &Arithmetic::ALL.map(Arithmetic::name))
}

fn one_of(variable: &str, names: &[&str]) -> Result<(), CliError> {
    let Some(wanted) = std::env::var_os(variable) else { return Ok(()) };
    if names.iter().any(|name| wanted == *name) {
        return Ok(());
    }
    let wanted = wanted.display();
    Err(CliError::Usage(format!("{variable} is `{wanted}`, but this machine has {}", names.join(", "))))
}
