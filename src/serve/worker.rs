//! The compute thread: takes jobs from the desk, draws them, one at a time.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::Daemon;
use super::catalogue::{Model, corrupt};
use super::desk::{Next, Reason, Task};
use super::order::{Order, unable};
use super::record::{JobId, Outcome};
use super::speed::Speed;
use crate::clip::Concept;
use crate::engine::{EngineError, Pulse, Resources, Stopped};
use crate::error::chain;
use crate::machine::hottest;
use crate::output::{self, OutputError};
use crate::pipeline::{
    Additions, Blocked, Image, LatentRgb, Manifest, PipelineError, Progress, Request, Seconds, Step,
    TextToImage,
};
use crate::protocol::{ErrorCode, ErrorDetail, JobRequest, PreviewMode};
use crate::tensor::Latents;

/// How often a thread without work shows that it is alive.
const PATIENCE: Duration = Duration::from_secs(1);

/// Why a job has no picture.
enum Failure {
    /// It is to end early; the desk knows why.
    Stopped,
    /// For good.
    Error(ErrorDetail),
}

/// What came of a request for one picture.
enum Drawn {
    Image(Image),
    Blocked(Blocked),
}

/// Draws until the desk says that there is nothing more to do.
pub fn work(daemon: &Daemon) {
    let mut worker = Worker { daemon, colours: BTreeMap::new(), concepts: BTreeMap::new(), has_tried: false };
    loop {
        // Alive, with nothing to stop.
        let _ = daemon.desk.pulse().beat();
        let heat = daemon.settings.reserve.check_heat(hottest(&daemon.settings.reserve.thermal));
        if heat.is_err() && !daemon.desk.is_draining() {
            std::thread::sleep(PATIENCE);
            continue;
        }
        match daemon.desk.next(PATIENCE) {
            Next::Task(task) => worker.serve(&task),
            Next::Nothing => worker.measure(),
            Next::Stop => return,
        }
    }
}

struct Worker<'a> {
    daemon: &'a Daemon,
    /// The colours of each model's latents, by the model's hash.
    colours: BTreeMap<String, LatentRgb>,
    /// What may not be drawn, in each model's space, by the model's hash.
    concepts: BTreeMap<String, Arc<Vec<Concept>>>,
    /// Whether measuring the default model has failed, and would again.
    has_tried: bool,
}

impl Worker<'_> {
    /// Measures how long a step of the default model takes, if that is not known and no job waits: so the first who asks
    /// for a picture is told when it will be there.
    fn measure(&mut self) {
        if self.has_tried {
            return;
        }
        let name = self.daemon.catalogue.default_name();
        let Ok(model) = self.daemon.catalogue.get(name) else { return };
        let request = JobRequest { steps: Some(1), ..JobRequest::default() };
        let Ok(order) = Order::new(request, name, &model.bundle) else { return };
        let Some(pulse) = self.daemon.desk.pastime(&order.kind()) else { return };
        let measured = self.time_step(&order, &pulse);
        self.has_tried = measured.is_err() && !pulse.is_stopped();
    }

    fn time_step(&mut self, order: &Order, pulse: &Pulse) -> Result<(), Failure> {
        let model = self.intact(&order.model, pulse)?;
        let request = order.request(&model.bundle, None).map_err(Failure::Error)?;
        self.run(order, &request, &model, pulse, &mut ())?;
        Ok(())
    }

    /// Draws a job and says how it ended.
    fn serve(&mut self, task: &Task) {
        let desk = &self.daemon.desk;
        let drawn = catch_unwind(AssertUnwindSafe(|| self.draw(task)));
        let outcome = match drawn {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(Failure::Error(error))) => Outcome::Failed { error },
            Ok(Err(Failure::Stopped)) => match desk.reason(&task.id) {
                Some(Reason::Paused) => return desk.pause(&task.id),
                Some(Reason::TimedOut) => {
                    Outcome::failed(ErrorCode::Timeout, "its time was over while it was drawn")
                }
                Some(Reason::Cancelled) | None => Outcome::Cancelled,
            },
            Err(_) => Outcome::Failed { error: ErrorDetail::defect() },
        };
        if let Outcome::Failed { error } = &outcome {
            log::warn!("job {} failed: {}", task.id, error.message);
        }
        desk.finish(&task.id, outcome);
    }

    fn draw(&mut self, task: &Task) -> Result<Outcome, Failure> {
        let (id, order, store) = (&task.id, &task.order, &self.daemon.store);
        let model = self.intact(&order.model, &task.pulse)?;
        let halfway = store.load_latents(id).filter(|halfway| halfway.done < order.steps);
        let request = order.request(&model.bundle, halfway).map_err(Failure::Error)?;
        let is_judged = self.daemon.settings.block.is_some() || model.has_safety_checker();
        let colours = match order.preview {
            // A preview would be seen before the picture can be judged.
            PreviewMode::Inline if !is_judged => Some(self.colours(&model, &task.pulse)?),
            _ => None,
        };
        let mut course = Watched { daemon: self.daemon, id, colours, kept: Instant::now() };
        match self.run(order, &request, &model, &task.pulse, &mut course)? {
            Drawn::Image(image) => self.keep(id, &image, &request, &model).map_err(Failure::Error),
            Drawn::Blocked(blocked) => Err(Failure::Error(refusal(&blocked))),
        }
    }

    /// A model whose checksums are right.
    fn intact(&self, name: &str, pulse: &Pulse) -> Result<Arc<Model>, Failure> {
        let model = self.daemon.catalogue.get(name).map_err(Failure::Error)?;
        let verified = model.verify(pulse)?;
        verified.map_err(|reason| Failure::Error(corrupt(&model.name, &reason)))?;
        Ok(model)
    }

    /// Draws, and takes note of how long that took.
    fn run(
        &mut self,
        order: &Order,
        request: &Request,
        model: &Model,
        pulse: &Pulse,
        course: &mut dyn Progress,
    ) -> Result<Drawn, PipelineError> {
        let concepts = self.concepts(model, pulse)?;
        let mut pipeline = TextToImage::new(model.bundle.clone(), self.resources(pulse)).without(concepts);
        let begun = Instant::now();
        let image = pipeline.run(request, course)?.pop();
        self.learn_speed(order, request, pipeline.seconds(), begun.elapsed());
        let blocked = || pipeline.blocked().first().expect("a picture is given out or blocked").clone();
        Ok(image.map_or_else(|| Drawn::Blocked(blocked()), Drawn::Image))
    }

    /// What may not be drawn with this model.
    fn concepts(&mut self, model: &Model, pulse: &Pulse) -> Result<Option<Arc<Vec<Concept>>>, PipelineError> {
        let Some(list) = &self.daemon.settings.block else { return Ok(None) };
        let hash = model.bundle.model_hash();
        if let Some(known) = self.concepts.get(&hash) {
            return Ok(Some(known.clone()));
        }
        let concepts = list.concepts(&model.bundle, &self.resources(pulse))?;
        self.concepts.insert(hash, concepts.clone());
        Ok(Some(concepts))
    }

    fn resources(&self, pulse: &Pulse) -> Resources {
        Resources { pulse: pulse.clone(), ..self.daemon.settings.resources.clone() }
    }

    /// Puts a picture where it is fetched from.
    fn keep(
        &self,
        id: &str,
        image: &Image,
        request: &Request,
        model: &Model,
    ) -> Result<Outcome, ErrorDetail> {
        let texts = Manifest::new(image, request, &model.bundle, &Additions::default()).texts();
        let saved = self.daemon.store.save_image(id, &image.pixels, &texts);
        let (sha256, bytes) = saved.map_err(|error| match error {
            OutputError::DiskFull { .. } => {
                ErrorDetail::new(ErrorCode::NoSpace, "the disk is full: make room, then ask again")
            }
            error => ErrorDetail::new(ErrorCode::Internal, chain(&error)),
        })?;
        Ok(Outcome::Done { sha256, bytes })
    }

    fn colours(&mut self, model: &Model, pulse: &Pulse) -> Result<LatentRgb, PipelineError> {
        let hash = model.bundle.model_hash();
        if let Some(known) = self.colours.get(&hash) {
            return Ok(known.clone());
        }
        let learnt = LatentRgb::learn(&model.bundle, &self.resources(pulse))?;
        self.colours.insert(hash, learnt.clone());
        Ok(learnt)
    }

    fn learn_speed(&self, order: &Order, request: &Request, seconds: Seconds, all: Duration) {
        let steps = order.steps - request.halfway.as_ref().map_or(0, |halfway| halfway.done);
        let beside = (all.as_secs_f64() - seconds.denoise).max(0.0);
        let speed = Speed { per_step: seconds.denoise / steps as f64, beside };
        if self.daemon.desk.measured(order.kind(), speed) {
            self.daemon.desk.speeds().save(&self.daemon.store.speeds());
        }
    }
}

/// The answer when a picture shows what may not be drawn.
fn refusal(blocked: &Blocked) -> ErrorDetail {
    let names: Vec<&str> = blocked.concepts.iter().map(|finding| &finding.concept[..]).collect();
    let message = format!("the picture is blocked: it shows {}; ask for something else", names.join(", "));
    ErrorDetail::new(ErrorCode::Blocked, message)
}

/// Tells the desk how a job gets on, and keeps its state from time to time.
struct Watched<'a> {
    daemon: &'a Daemon,
    id: &'a JobId,
    colours: Option<LatentRgb>,
    kept: Instant,
}

impl Progress for Watched<'_> {
    fn truncated(&mut self, dropped: &str) {
        log::info!("job {}: {} bytes at the end of the prompt have no effect", self.id, dropped.len());
    }

    fn wants_original(&self) -> bool {
        self.colours.is_some()
    }

    fn step(&mut self, step: Step) {
        let is_last = step.done == step.total;
        let saved = !is_last && self.kept.elapsed() >= self.daemon.settings.save_every && self.save(&step);
        let preview = step.original.and_then(|original| self.preview(original));
        self.daemon.desk.step(self.id, step.done, preview, saved);
    }
}

impl Watched<'_> {
    fn save(&mut self, step: &Step) -> bool {
        self.kept = Instant::now();
        let saved = self.daemon.store.save_latents(self.id, step.done, step.latents, step.memory);
        if let Err(error) = &saved {
            log::warn!("job {}: its state is not kept: {error}", self.id);
        }
        saved.is_ok()
    }

    /// In base64.
    fn preview(&self, original: &Latents) -> Option<Arc<str>> {
        let picture = self.colours.as_ref()?.preview(original).ok()?;
        Some(BASE64.encode(output::encode_png(&picture, &[]).ok()?).into())
    }
}

impl From<Stopped> for Failure {
    fn from(_: Stopped) -> Self {
        Self::Stopped
    }
}

impl From<PipelineError> for Failure {
    fn from(error: PipelineError) -> Self {
        match error.engine() {
            Some(EngineError::Stopped { .. }) => Self::Stopped,
            _ => Self::Error(unable(&error)),
        }
    }
}
