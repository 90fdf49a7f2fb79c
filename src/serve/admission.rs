//! Whether the machine has what a picture takes, before any work is done for it.

use std::fs;
use std::path::{Path, PathBuf};

use crate::protocol::{ErrorCode, ErrorDetail};

/// When it may be worth asking again, in milliseconds.
const MEMORY_RETRY_MS: u64 = 10_000;
const HEAT_RETRY_MS: u64 = 30_000;
const SPACE_RETRY_MS: u64 = 60_000;

/// What is left to the rest of the machine.
#[derive(Debug, Clone)]
pub struct Reserve {
    /// Memory that stays available, in bytes.
    pub memory_bytes: u64,
    /// Space that stays free on the disk of the state folder, in bytes.
    pub disk_bytes: u64,
    /// From this temperature on nothing new is begun, in degrees Celsius.
    pub celsius: f64,
    /// Where the kernel shows temperatures.
    pub thermal: PathBuf,
}

impl Reserve {
    /// Checks memory, disk and heat for a picture that takes so much anonymous memory.
    ///
    /// # Errors
    /// `insufficient_memory`, `no_space`, `thermal`, each with the figures and when to ask again.
    pub fn check(&self, peak_bytes: usize, state: &Path) -> Result<(), ErrorDetail> {
        self.check_memory(peak_bytes, available_bytes())?;
        self.check_space(free_bytes(state))?;
        self.check_heat(hottest(&self.thermal))
    }

    fn check_memory(&self, peak_bytes: usize, available: Option<u64>) -> Result<(), ErrorDetail> {
        let Some(available) = available else { return Ok(()) };
        if peak_bytes as u64 + self.memory_bytes <= available {
            return Ok(());
        }
        let [needed, reserve, available] = [peak_bytes as u64, self.memory_bytes, available].map(megabytes);
        let message = format!(
            "the picture takes {needed} MB beside {reserve} MB in reserve, and {available} MB are available: draw a smaller one"
        );
        Err(ErrorDetail::new(ErrorCode::InsufficientMemory, message).retry_after(MEMORY_RETRY_MS))
    }

    fn check_space(&self, free: Option<u64>) -> Result<(), ErrorDetail> {
        match free {
            Some(free) if free < self.disk_bytes => {
                let [free, reserve] = [free, self.disk_bytes].map(megabytes);
                let message =
                    format!("{free} MB are free on the disk, and {reserve} MB have to stay free: make room");
                Err(ErrorDetail::new(ErrorCode::NoSpace, message).retry_after(SPACE_RETRY_MS))
            }
            _ => Ok(()),
        }
    }

    /// Checks heat alone.
    ///
    /// # Errors
    /// `thermal`.
    pub fn check_heat(&self, hottest: Option<f64>) -> Result<(), ErrorDetail> {
        match hottest {
            Some(celsius) if celsius >= self.celsius => {
                let message = format!(
                    "the board is at {celsius:.0} C, and begins nothing from {:.0} C on",
                    self.celsius
                );
                Err(ErrorDetail::new(ErrorCode::Thermal, message).retry_after(HEAT_RETRY_MS))
            }
            _ => Ok(()),
        }
    }
}

fn megabytes(bytes: u64) -> u64 {
    bytes.div_ceil(1_000_000)
}

/// Memory that the kernel could give without swapping, in bytes.
pub fn available_bytes() -> Option<u64> {
    let meminfo = fs::read_to_string("/proc/meminfo").ok()?;
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
}

/// Space that is free for us on the disk of `path`, in bytes.
pub fn free_bytes(path: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(path).ok()?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// The highest temperature that the kernel shows, in degrees Celsius.
pub fn hottest(thermal: &Path) -> Option<f64> {
    let zones = fs::read_dir(thermal).ok()?.flatten();
    let zones = zones.filter(|zone| zone.file_name().to_string_lossy().starts_with("thermal_zone"));
    let millidegrees =
        |zone: fs::DirEntry| fs::read_to_string(zone.path().join("temp")).ok()?.trim().parse().ok();
    let degrees = zones.filter_map(millidegrees).map(|millidegrees: f64| millidegrees / 1000.0);
    degrees.max_by(f64::total_cmp)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reserve() -> Reserve {
        let thermal = PathBuf::from("/nowhere");
        Reserve { memory_bytes: 64_000_000, disk_bytes: 50_000_000, celsius: 80.0, thermal }
    }

    #[test]
    fn memory_is_refused_with_both_figures() {
        assert_eq!(reserve().check_memory(100_000_000, Some(164_000_000)), Ok(()));
        assert_eq!(reserve().check_memory(100_000_000, None), Ok(()));
        let refused = reserve().check_memory(100_000_000, Some(163_999_999)).unwrap_err();
        assert_eq!(refused.code, ErrorCode::InsufficientMemory);
        assert!(
            refused.message.contains("100 MB") && refused.message.contains("164 MB"),
            "{}",
            refused.message
        );
        assert_eq!(refused.retry_after_ms, Some(MEMORY_RETRY_MS));
    }

    #[test]
    fn a_full_disk_and_a_hot_board_are_refused() {
        assert_eq!(reserve().check_space(Some(50_000_000)), Ok(()));
        assert_eq!(reserve().check_space(Some(49_999_999)).unwrap_err().code, ErrorCode::NoSpace);
        assert_eq!(reserve().check_heat(Some(79.9)), Ok(()));
        assert_eq!(reserve().check_heat(Some(80.0)).unwrap_err().code, ErrorCode::Thermal);
    }

    #[test]
    fn the_hottest_zone_counts() {
        let folder = tempfile::tempdir().unwrap();
        for (zone, text) in
            [("thermal_zone0", "45500\n"), ("thermal_zone1", "61250\n"), ("cooling_device0", "9e9")]
        {
            fs::create_dir(folder.path().join(zone)).unwrap();
            fs::write(folder.path().join(zone).join("temp"), text).unwrap();
        }
        assert_eq!(hottest(folder.path()), Some(61.25));
        assert_eq!(hottest(Path::new("/nowhere")), None);
    }

    #[test]
    fn the_machine_tells_its_figures() {
        assert!(available_bytes().unwrap() > 1 << 20);
        assert!(free_bytes(Path::new("/")).is_some());
    }
}
