//! What the kernel says of this process.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

/// Memory that is resident, in bytes; 0 where the kernel does not tell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Resident {
    /// Anonymous memory: RssAnon + RssShmem.
    pub anon_bytes: u64,
    /// Pages of mapped files: RssFile.
    pub file_bytes: u64,
    /// The most of all kinds together since the process began: VmHWM.
    pub peak_bytes: u64,
}

/// Where the kernel tells of this process, kept open to be looked at often.
#[derive(Debug)]
pub struct Status {
    file: Option<File>,
    text: [u8; 4096],
}

impl Status {
    /// Opens it.
    pub fn open() -> Self {
        Self { file: File::open("/proc/self/status").ok(), text: [0; 4096] }
    }

    /// The memory of this process now.
    pub fn resident(&mut self) -> Resident {
        let read = self.file.as_ref().and_then(|file| file.read_at(&mut self.text, 0).ok()).unwrap_or(0);
        of_status(&String::from_utf8_lossy(&self.text[..read]))
    }
}

/// The memory of this process now.
pub fn resident() -> Resident {
    Status::open().resident()
}

/// Page faults of this process that had to wait for the disk, since it began.
pub fn major_faults() -> u64 {
    of_stat(&std::fs::read_to_string("/proc/self/stat").unwrap_or_default()).unwrap_or(0)
}

fn of_status(status: &str) -> Resident {
    Resident {
        anon_bytes: field(status, "RssAnon:") + field(status, "RssShmem:"),
        file_bytes: field(status, "RssFile:"),
        peak_bytes: field(status, "VmHWM:"),
    }
}

/// A line such as `RssAnon:      1234 kB`, in bytes.
fn field(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kilobytes = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}

/// The twelfth field; the second is the program's name in parentheses, which may hold anything.
fn of_stat(stat: &str) -> Option<u64> {
    let (_, behind_name) = stat.rsplit_once(')')?;
    behind_name.split_whitespace().nth(12 - 3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_texts_are_read() {
        let status = "Name:\tx\nVmHWM:\t  300 kB\nRssAnon:\t  100 kB\nRssFile:\t  20 kB\nRssShmem:\t  1 kB\n";
        let expected = Resident { anon_bytes: 101 << 10, file_bytes: 20 << 10, peak_bytes: 300 << 10 };
        assert_eq!(of_status(status), expected);
        assert_eq!(of_status(""), Resident::default());
        assert_eq!(of_stat("7 (a) b (c) S 1 7 7 0 -1 4194304 111 0 42 0 5 6"), Some(42));
        assert_eq!(of_stat("7"), None);
    }

    #[test]
    fn this_process_holds_memory() {
        assert!(resident().anon_bytes > 0 && resident().peak_bytes >= resident().anon_bytes);
    }
}
