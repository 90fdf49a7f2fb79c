//! `tintype embed`: sentences and pictures as points of one space, and how near they are.

use serde_json::json;

use super::args::EmbedArgs;
use super::error::CliError;
use super::model;
use super::print::print;
use crate::engine::Resources;
use crate::pipeline::{self, RequestError};
use crate::text::Prompt;

/// Embeds, and prints the table of similarities.
///
/// # Errors
/// [`CliError`].
pub fn embed(args: &EmbedArgs) -> Result<(), CliError> {
    if args.text.is_empty() && args.image.is_empty() {
        return Err(CliError::Usage("there is nothing to embed: give --text or --image".into()));
    }
    let texts: Result<Vec<Prompt>, _> = args.text.iter().map(|text| Prompt::new(text.as_str())).collect();
    let texts = texts.map_err(RequestError::from)?;
    let (_, bundle) = model::open(Some(&args.file))?;
    let embedded = pipeline::embed(&bundle, &Resources::new(model::threads(None)?), &texts, &args.image)?;
    let table = embedded.similarity();
    if args.json {
        let names = args.text.iter().map(|text| json!({ "text": text }));
        let names = names.chain(args.image.iter().map(|path| json!({ "image": path })));
        let items = names.zip(&embedded.items).map(|(mut item, embedding)| {
            item["embedding"] = json!(embedding);
            item
        });
        return print(&json!({ "items": items.collect::<Vec<_>>(), "similarity": table }).to_string());
    }
    let names = args.text.iter().cloned().chain(args.image.iter().map(|path| path.display().to_string()));
    for (row, name) in table.iter().zip(names) {
        let cells: String = row.iter().map(|cosine| format!("{cosine:>7.3}")).collect();
        print(&format!("{cells}  {name}"))?;
    }
    Ok(())
}
