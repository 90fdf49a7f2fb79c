//! What the kernel says of this machine: memory, disk, heat, clock. `None` wherever it does not tell.

use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::time::Instant;

/// Where the kernel shows temperatures.
pub const THERMAL: &str = "/sys/class/thermal";
/// Bytes that a storage is read for to know its speed.
const SAMPLE_BYTES: u64 = 64 << 20;

/// Bits of a Raspberry Pi's firmware, and what each means.
///
/// Source: Raspberry Pi documentation, `vcgencmd get_throttled`.
const THROTTLED: [(u32, &str); 8] = [
    (0, "under-voltage"),
    (1, "clock capped"),
    (2, "throttled"),
    (3, "near its temperature limit"),
    (16, "under-voltage since start"),
    (17, "clock capped since start"),
    (18, "throttled since start"),
    (19, "near its temperature limit since start"),
];

/// The clock of the first core, in MHz.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clock {
    /// Now.
    pub now_mhz: u64,
    /// At most.
    pub max_mhz: u64,
}

/// What a storage gave.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ReadSpeed {
    /// Bytes that were read.
    pub bytes: u64,
    /// Seconds that it took.
    pub seconds: f64,
}

/// The board's name, which boards with a device tree have.
pub fn board() -> Option<String> {
    let name = fs::read_to_string("/proc/device-tree/model").ok()?;
    Some(name.trim_end_matches('\0').to_owned())
}

/// Memory that the machine has, in bytes.
pub fn memory_bytes() -> Option<u64> {
    meminfo("MemTotal:")
}

/// Memory that the kernel could give without swapping, in bytes.
pub fn available_bytes() -> Option<u64> {
    meminfo("MemAvailable:")
}

fn meminfo(name: &str) -> Option<u64> {
    let meminfo = fs::read_to_string("/proc/meminfo").ok()?;
    let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
}

/// Space that is free for us on the disk of `path`, in bytes.
pub fn free_bytes(path: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(path).ok()?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// Bytes of a page of memory.
pub fn page_bytes() -> usize {
    rustix::param::page_size()
}

/// The highest temperature that the kernel shows, in degrees Celsius.
pub fn hottest(thermal: &Path) -> Option<f64> {
    let zones = fs::read_dir(thermal).ok()?.flatten();
    let zones = zones.filter(|zone| zone.file_name().to_string_lossy().starts_with("thermal_zone"));
    let degrees =
        zones.filter_map(|zone| number(&zone.path().join("temp"))).map(|milli| milli as f64 / 1000.0);
    degrees.max_by(f64::total_cmp)
}

/// The clock.
pub fn clock() -> Option<Clock> {
    let folder = Path::new("/sys/devices/system/cpu/cpu0/cpufreq");
    let mhz = |name: &str| number(&folder.join(name)).map(|khz| khz / 1000);
    Some(Clock { now_mhz: mhz("scaling_cur_freq")?, max_mhz: mhz("cpuinfo_max_freq")? })
}

/// What a Raspberry Pi's firmware complains of; nothing is an empty list.
pub fn throttling() -> Option<Vec<&'static str>> {
    let flags = fs::read_to_string("/sys/devices/platform/soc/soc:firmware/get_throttled").ok()?;
    of_flags(&flags)
}

fn of_flags(text: &str) -> Option<Vec<&'static str>> {
    let flags = u32::from_str_radix(text.trim().trim_start_matches("0x"), 16).ok()?;
    Some(THROTTLED.iter().filter(|(bit, _)| flags >> bit & 1 == 1).map(|&(_, meaning)| meaning).collect())
}

fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// Reads the first bytes of a file, past the system's cache where that can be; a file that is mapped stays in it.
pub fn read_speed(path: &Path) -> Option<ReadSpeed> {
    let file = fs::File::open(path).ok()?;
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).ok()?;
    let begun = Instant::now();
    let mut buffer = vec![0; 1 << 20];
    let mut rest = file.take(SAMPLE_BYTES);
    let mut bytes = 0;
    loop {
        match rest.read(&mut buffer).ok()? {
            0 => break,
            got => bytes += got as u64,
        }
    }
    Some(ReadSpeed { bytes, seconds: begun.elapsed().as_secs_f64() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hottest_zone_counts() {
        let folder = tempfile::tempdir().unwrap();
        for (zone, text) in
            [("thermal_zone0", "45500\n"), ("thermal_zone1", "61250\n"), ("cooling_device0", "99000")]
        {
            fs::create_dir(folder.path().join(zone)).unwrap();
            fs::write(folder.path().join(zone).join("temp"), text).unwrap();
        }
        assert_eq!(hottest(folder.path()), Some(61.25));
        assert_eq!(hottest(Path::new("/nowhere")), None);
    }

    #[test]
    fn the_firmwares_flags_are_read() {
        assert_eq!(of_flags("0\n"), Some(vec![]));
        assert_eq!(
            of_flags("50005"),
            Some(vec!["under-voltage", "throttled", "under-voltage since start", "throttled since start"])
        );
        assert_eq!(of_flags("0x4"), Some(vec!["throttled"]));
        assert_eq!(of_flags("hot"), None);
    }

    #[test]
    fn the_machine_tells_its_figures() {
        assert!(available_bytes().unwrap() > 1 << 20);
        assert!(memory_bytes() > available_bytes());
        assert!(free_bytes(Path::new("/")).is_some());
        assert!(page_bytes().is_power_of_two());
    }

    #[test]
    fn a_file_is_read_to_its_end() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), vec![1; 3_000_000]).unwrap();
        assert_eq!(read_speed(file.path()).unwrap().bytes, 3_000_000);
        assert_eq!(read_speed(Path::new("/nowhere")), None);
    }
}
