//! Makes the manual pages and the completions of the command line: `cargo run --release --example manual -- FOLDER`.
//!
//! They are made of the same definitions that the program reads its flags with, so they cannot say anything else.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::PathBuf;

use clap_complete::Shell;

/// What the flags do not say, at the end of the first page.
const MORE: &str = r#".SH "EXIT STATUS"
.IP 0 4
done
.IP 1 4
failed: reading, writing, computing
.IP 2 4
wrong flags, or a request that the model cannot serve
.IP 3 4
no model, or one that cannot be used
.IP 4 4
the daemon is busy, or there is none
.IP 5 4
not enough memory allowed for this picture
.IP 75 4
the model file was cut short while it was in use
.SH FILES
.I /usr/share/tintype/models
holds the models,
.I /var/lib/tintype
what the daemon keeps.
.SH EXAMPLE
.EX
tintype generate "a glossy strawberry on a blue background" \-o out.png
.EE
"#;

fn main() -> io::Result<()> {
    let Some(folder) = std::env::args_os().nth(1).map(PathBuf::from) else {
        return Err(io::Error::other("name the folder to write to"));
    };
    let (manual, completions) = (folder.join("man"), folder.join("completions"));
    fs::create_dir_all(&manual)?;
    fs::create_dir_all(&completions)?;

    clap_mangen::generate_to(tintype::cli::command(), &manual)?;
    OpenOptions::new().append(true).open(manual.join("tintype.1"))?.write_all(MORE.as_bytes())?;

    let mut command = tintype::cli::command();
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut command, "tintype", &completions)?;
    }
    Ok(())
}
