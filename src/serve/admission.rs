//! Whether the machine has what a picture takes, before any work is done for it.

use std::path::{Path, PathBuf};

use crate::machine::{available_bytes, free_bytes, hottest};
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
}
