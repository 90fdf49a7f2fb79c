//! Errors as a person reads them.

use std::error::Error;

/// `what: why: why that`, on one line; a cause that its parent already tells is not repeated.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    for cause in std::iter::successors(error.source(), |&cause| cause.source()) {
        let told = cause.to_string();
        if !text.ends_with(&told) {
            text += &format!(": {told}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Example {
        #[error("no picture")]
        Top(#[source] std::fmt::Error),
        #[error("no picture: {0}")]
        Telling(#[source] std::fmt::Error),
    }

    #[test]
    fn causes_are_told_once() {
        let cause = std::fmt::Error.to_string();
        assert_eq!(chain(&Example::Top(std::fmt::Error)), format!("no picture: {cause}"));
        assert_eq!(chain(&Example::Telling(std::fmt::Error)), format!("no picture: {cause}"));
    }
}
