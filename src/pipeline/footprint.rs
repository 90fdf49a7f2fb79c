//! What the stages of a picture will take, before anything is computed.

use std::sync::Arc;

use super::{Size, example};
use crate::bundle::{self, Bundle};
use crate::engine::{Component, EngineError, Footprint, Resources};

/// What each of these components will take for one picture of `size`. Stages follow one another, so the picture takes
/// as much as the largest of its stages.
///
/// # Errors
/// As [`Component::prepare`]: among others, that a component takes more memory than `resources` allow.
pub fn footprints(
    bundle: &Arc<Bundle>,
    components: &[bundle::Component],
    size: Size,
    resources: &Resources,
) -> Result<Vec<Footprint>, EngineError> {
    let footprint = |&kind: &bundle::Component| {
        let mut component = Component::load(bundle, kind, resources)?;
        component.prepare(&example(bundle, kind, component.inputs(), size))
    };
    components.iter().map(footprint).collect()
}
