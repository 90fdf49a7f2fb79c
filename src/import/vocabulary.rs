//! Tokenizers for sources that have none as files of their own: single files of weights, and newer folders of transformers.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;

use flate2::read::GzDecoder;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::ImportError;
use super::config_file;
use super::source::Files;

/// The merges of OpenAI's CLIP, from which its vocabulary follows; `tests/data/README.md` says where they come from.
const MERGES: &[u8] = include_bytes!("clip-merges.txt.gz");
const BEGIN: &str = "<|startoftext|>";
/// Ends a text, and fills what follows in Stable Diffusion 1 and in the first encoder of XL.
pub const END: &str = "<|endoftext|>";
/// Fills what follows a text in Stable Diffusion 2 and in the second encoder of XL; its id is 0.
pub const FILLER: &str = "!";
/// Tokens of the vocabulary.
const SIZE: u64 = 49_408;

/// The files of one tokenizer or two with CLIP's vocabulary, by what fills the rest of a text.
pub fn files(pads: &[&str]) -> Files {
    let mut merges = String::new();
    GzDecoder::new(MERGES).read_to_string(&mut merges).expect("the file is part of the program");
    let vocab = vocabulary(&merges).to_string().into_bytes();
    let tokenizer = |(folder, pad): (&str, &&str)| {
        let config = json!({
            "tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "bos_token": BEGIN, "eos_token": END,
            "unk_token": END, "pad_token": pad,
        });
        [
            (format!("{folder}/vocab.json"), vocab.clone()),
            (format!("{folder}/merges.txt"), merges.clone().into_bytes()),
            (format!("{folder}/tokenizer_config.json"), config.to_string().into_bytes()),
        ]
    };
    ["tokenizer", "tokenizer_2"].into_iter().zip(pads).flat_map(tokenizer).collect()
}

/// That a network that reads tokens knows as many as the vocabulary has.
///
/// # Errors
/// [`ImportError::Config`].
pub fn check(path: &Path, config: &Value) -> Result<(), ImportError> {
    match config["vocab_size"].as_u64() {
        Some(got) if got != SIZE => {
            let reason = format!(
                "its text encoder knows {got} tokens and CLIP's vocabulary has {SIZE}: import a folder with a tokenizer in it"
            );
            Err(ImportError::Config { path: path.to_owned(), reason })
        }
        _ => Ok(()),
    }
}

/// Every byte as a printable character, as it is in a word and as it ends one; what merges make; begin and end.
fn vocabulary(merges: &str) -> Value {
    let printable = |byte: &u32| matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    let others = 256 - (0..256).filter(printable).count() as u32;
    let alphabet = || (0..256).filter(printable).chain(256..256 + others).filter_map(char::from_u32);
    let bytes = alphabet().map(String::from).chain(alphabet().map(|byte| format!("{byte}</w>")));
    // The first line is a version.
    let merged = merges.lines().skip(1).map(|pair| pair.replace(' ', ""));
    let tokens = bytes.chain(merged).chain([BEGIN.to_owned(), END.to_owned()]);
    tokens.zip((0..).map(Value::from)).collect::<Map<_, _>>().into()
}

/// The part of a `tokenizer.json` that is wanted.
#[derive(Deserialize)]
struct Joint {
    model: Model,
}

#[derive(Deserialize)]
struct Model {
    vocab: BTreeMap<String, u32>,
    merges: Vec<Merge>,
}

/// Two tokens, as newer and as older versions write them.
#[derive(Deserialize)]
#[serde(untagged)]
enum Merge {
    Pair([String; 2]),
    Line(String),
}

/// Vocabulary and merges of a `tokenizer.json`, which holds both, as files of the folder `tokenizer`.
///
/// # Errors
/// [`ImportError::Read`], [`ImportError::Config`].
pub fn taken_apart(tokenizer: &str, path: &Path) -> Result<Files, ImportError> {
    let Joint { model: Model { vocab, merges } } = config_file::parse(path)?;
    let lines = merges.into_iter().map(|merge| match merge {
        Merge::Pair([first, second]) => format!("{first} {second}\n"),
        Merge::Line(line) => format!("{line}\n"),
    });
    let merges = format!("#version: 0.2\n{}", lines.collect::<String>());
    Ok(vec![
        (format!("{tokenizer}/vocab.json"), json!(vocab).to_string().into_bytes()),
        (format!("{tokenizer}/merges.txt"), merges.into_bytes()),
    ])
}
