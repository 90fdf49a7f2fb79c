//! What storing weights in fewer bits does to what a model computes: each component, and a whole picture.

use std::path::Path;
use std::sync::Arc;

use super::ImportError;
use super::report::{Deviation, Difference, Report};
use crate::bundle::{self, Bundle, PipelineKind};
use crate::engine::{Component, Resources, Threads};
use crate::pipeline::{Image, PipelineError, Request, Size, draw, example, example_prompt};
use crate::text::Prompt;

/// Runs the model at `stored` and the same one in f32 at `exact` on the same inputs, and puts the differences into
/// `report`. The picture takes the model's own size and steps; there is none if the model cannot draw.
pub fn measure(stored: &Path, exact: &Path, report: &mut Report) -> Result<(), ImportError> {
    let open = |path| Ok::<_, ImportError>(Arc::new(Bundle::open(path).map_err(ImportError::Reopen)?));
    let (stored, exact) = (open(stored)?, open(exact)?);
    let resources = Resources::new(Threads::new(Threads::cores()));
    for component in &mut report.components {
        let kind = bundle::Component::from_name(component.component).expect("the report names components");
        let output = |bundle| output(bundle, kind, &resources);
        component.output = Some(difference(Deviation::default(), &output(&exact)?, &output(&stored)?));
    }
    let needed: &[bundle::Component] = match stored.pipeline().kind {
        PipelineKind::Pixels => &[bundle::Component::Unet],
        _ => &[bundle::Component::TextEncoder, bundle::Component::Unet, bundle::Component::VaeDecoder],
    };
    // unCLIP without a prior draws from pictures, of which there is none here.
    let reads_prompts =
        stored.pipeline().unclip.is_none() || stored.component(bundle::Component::Prior).is_some();
    if reads_prompts && needed.iter().all(|&kind| stored.component(kind).is_some()) {
        let [exact, stored] = [exact, stored].map(|bundle| picture(&bundle, &resources));
        if let (Some(exact), Some(stored)) = (exact?, stored?) {
            report.picture = Some(difference(Deviation::of_range(0.0, 255.0), &exact, &stored));
        }
    }
    Ok(())
}

/// All outputs of a component for example inputs, one behind the other.
fn output(
    bundle: &Arc<Bundle>,
    kind: bundle::Component,
    resources: &Resources,
) -> Result<Vec<f32>, ImportError> {
    let size = Size::of_model(bundle.pipeline());
    let run = || {
        let mut component = Component::load(bundle, kind, resources)?;
        let inputs = example(bundle, kind, component.inputs(), size);
        Ok(component.run(&inputs)?.into_iter().flat_map(|output| output.values).collect())
    };
    run().map_err(|source| ImportError::Run { component: kind, source })
}

/// The pixels of a picture, 0 to 255; none if the model's safety checker blocks it.
fn picture(bundle: &Arc<Bundle>, resources: &Resources) -> Result<Option<Vec<f32>>, ImportError> {
    let prompt = Prompt::new(example_prompt(bundle)).expect("it is short");
    let request = Request::new(bundle, prompt, 0).map_err(PipelineError::from)?;
    let (images, _) = draw(bundle, resources, &request, &mut ())?;
    let pixels = |image: &Image| image.pixels.pixels().iter().copied().map(f32::from).collect();
    Ok(images.first().map(pixels))
}

fn difference(mut deviation: Deviation, exact: &[f32], stored: &[f32]) -> Difference {
    deviation.add(exact, stored.iter().copied());
    deviation.difference()
}
