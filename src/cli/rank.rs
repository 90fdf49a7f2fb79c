//! `tintype rank`: pictures sorted by how like a sentence they are.

use serde_json::json;

use super::args::RankArgs;
use super::error::CliError;
use super::model;
use super::print::print;
use crate::engine::Resources;
use crate::pipeline::{self, RequestError};
use crate::text::Prompt;

/// Embeds all, and prints the pictures, the most similar first; equals stay in the order in which they were given.
///
/// # Errors
/// [`CliError`].
pub fn rank(args: &RankArgs) -> Result<(), CliError> {
    let text = Prompt::new(args.text.as_str()).map_err(RequestError::from)?;
    let (_, bundle) = model::open(Some(&args.file))?;
    let resources = Resources::new(model::threads(None)?);
    let embedded = pipeline::embed(&bundle, &resources, &[text], &args.pictures)?;
    let similarity = embedded.similarity().swap_remove(0);
    let mut ranking: Vec<_> = args.pictures.iter().zip(&similarity[1..]).collect();
    ranking.sort_by(|a, b| b.1.total_cmp(a.1));
    if args.json {
        let pictures =
            ranking.iter().map(|(path, similarity)| json!({ "image": path, "similarity": similarity }));
        let report = json!({ "text": args.text, "ranking": pictures.collect::<Vec<_>>() });
        return print(&report.to_string());
    }
    ranking.iter().try_for_each(|(path, similarity)| print(&format!("{similarity:>7.3}  {}", path.display())))
}
