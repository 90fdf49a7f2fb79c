//! The contract of `text`: token ids as transformers gives them, and files that are not trusted.
//!
//! The goldens and their generator are described in `tests/data/README.md`.

use std::io::Read;
use std::path::PathBuf;

use serde_json::{Value, json};
use tintype::text::tokenizer::{Tokenizer, TokenizerError, TokenizerFiles};
use tintype::text::{PROMPT_MAX_BYTES, Prompt, PromptTooLong};

const BEGIN: &str = "<|startoftext|>";
const END: &str = "<|endoftext|>";

fn data(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests", "data", name].iter().collect()
}

fn read(path: &PathBuf) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn read_json(name: &str) -> Value {
    serde_json::from_slice(&read(&data(name))).unwrap()
}

fn prompts() -> Vec<Prompt> {
    let texts: Vec<String> = serde_json::from_slice(&read(&data("prompts.json"))).unwrap();
    texts.into_iter().map(|text| Prompt::new(text).unwrap()).collect()
}

fn prompt(text: &str) -> Prompt {
    Prompt::new(text).unwrap()
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

/// The files of a tokenizer, to be tampered with.
struct Files {
    vocab: Vec<u8>,
    merges: Vec<u8>,
    config: Vec<u8>,
    special_tokens_map: Option<Vec<u8>>,
}

impl Files {
    fn open(&self, context: usize) -> Result<Tokenizer, TokenizerError> {
        let files = TokenizerFiles {
            vocab: &self.vocab,
            merges: &self.merges,
            config: &self.config,
            special_tokens_map: self.special_tokens_map.as_deref(),
        };
        Tokenizer::from_files(files, context)
    }

    fn error(&self) -> String {
        self.open(77).map(|_| ()).unwrap_err().to_string()
    }
}

fn alphabet() -> Vec<char> {
    let printable = |byte: &u32| matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    let rest = 256 - (0..256).filter(printable).count() as u32;
    (0..256).filter(printable).chain(256..256 + rest).map(|c| char::from_u32(c).unwrap()).collect()
}

/// The formula of `clip_vocabulary` in tools/goldens/tokens.py.
fn vocabulary(merges: &str) -> Vec<String> {
    let mut tokens: Vec<String> = alphabet().iter().map(char::to_string).collect();
    tokens.extend(alphabet().iter().map(|c| format!("{c}</w>")));
    tokens.extend(merges.lines().skip(1).map(|line| line.replace(' ', "")));
    tokens.extend([BEGIN.to_owned(), END.to_owned()]);
    tokens
}

fn vocab_json(tokens: &[String]) -> Vec<u8> {
    let object: serde_json::Map<String, Value> = tokens.iter().cloned().zip((0..).map(Value::from)).collect();
    Value::Object(object).to_string().into_bytes()
}

fn files(merges: &str) -> Files {
    let config = b"{}".to_vec();
    Files { vocab: vocab_json(&vocabulary(merges)), merges: merges.into(), config, special_tokens_map: None }
}

/// A vocabulary of bytes and the word `cat`: ids 512 to 513, begin 514, end 515.
fn small() -> Files {
    files("#version: 0.2\nc a\nca t</w>\n")
}

fn clip() -> Files {
    let mut merges = String::new();
    flate2::read::GzDecoder::new(
        &read(&PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/import/clip-merges.txt.gz"))[..],
    )
    .read_to_string(&mut merges)
    .unwrap();
    files(&merges)
}

fn shipped() -> Files {
    let folder: PathBuf = [env!("CARGO_MANIFEST_DIR"), "models", "source", "tokenizer"].iter().collect();
    let file = |name| read(&folder.join(name));
    Files {
        vocab: file("vocab.json"),
        merges: file("merges.txt"),
        config: file("tokenizer_config.json"),
        special_tokens_map: Some(file("special_tokens_map.json")),
    }
}

/// Encodes every text of the list and compares, padding included.
fn assert_ids(tokenizer: &Tokenizer, expected: impl Fn(usize) -> Vec<u32>, pad: u32, name: &str) {
    for (i, prompt) in prompts().iter().enumerate() {
        let mut want = expected(i);
        want.resize(tokenizer.context(), pad);
        let got = tokenizer.encode(prompt).unwrap();
        assert_eq!(got.ids.as_slice(), want, "{name}: {prompt:?}");
    }
}

// Ids

#[test]
fn ids_of_clip_are_those_of_transformers() {
    let golden = read_json("tokens-clip.json");
    let rows = golden["ids"].as_array().unwrap();
    assert!(rows.len() >= 200 && rows.len() == prompts().len());
    let tokenizer = Files { config: golden["config"].to_string().into_bytes(), ..clip() }.open(77).unwrap();
    assert_eq!(tokenizer.vocab_size(), 49_408);
    assert_ids(&tokenizer, |i| ids(&rows[i]), 49_407, "plain");
}

#[test]
fn ids_under_the_configurations_of_other_models_are_those_of_transformers() {
    let golden = read_json("tokens-clip.json");
    let plain = golden["ids"].as_array().unwrap();
    for case in golden["configurations"].as_array().unwrap() {
        let map = &case["special_tokens_map"];
        let special_tokens_map = (!map.is_null()).then(|| map.to_string().into_bytes());
        let config = case["config"].to_string().into_bytes();
        let tokenizer = Files { config, special_tokens_map, ..clip() }.open(77).unwrap();
        let expected = |i: usize| ids(case["differing"].get(i.to_string()).unwrap_or(&plain[i]));
        assert_ids(&tokenizer, expected, case["pad"].as_u64().unwrap() as u32, &case["name"].to_string());
    }
}

#[test]
fn ids_of_the_shipped_vocabulary_are_those_of_transformers() {
    let golden = read_json("tokens-emoji.json");
    let rows = golden["ids"].as_array().unwrap();
    assert_eq!(rows.len(), prompts().len());
    let tokenizer = shipped().open(golden["context"].as_u64().unwrap() as usize).unwrap();
    assert_ids(&tokenizer, |i| ids(&rows[i]), golden["pad"].as_u64().unwrap() as u32, "shipped");
}

#[test]
fn every_character_of_unicode_has_ids_below_the_size_of_the_vocabulary() {
    let tokenizer = small().open(77).unwrap();
    let size = u32::try_from(tokenizer.vocab_size()).unwrap();
    for start in (0..=0x10_ffff).step_by(16) {
        let text: String = (start..start + 16).filter_map(char::from_u32).collect();
        assert!(tokenizer.encode(&prompt(&text)).unwrap().ids.iter().all(|&id| id < size));
    }
}

// Truncation

#[test]
fn what_fits_is_not_dropped() {
    let tokenizer = small().open(5).unwrap();
    let tokens = tokenizer.encode(&prompt("Cat cat  CAT")).unwrap();
    assert_eq!((tokens.ids.as_slice(), tokens.dropped), (&[514, 513, 513, 513, 515][..], None));
    let tokens = tokenizer.encode(&prompt("")).unwrap();
    assert_eq!((tokens.ids.as_slice(), tokens.dropped), (&[514, 515, 515, 515, 515][..], None));
}

#[test]
fn what_does_not_fit_is_named_as_it_was_written() {
    let tokenizer = small().open(4).unwrap();
    let dropped = |text: &str| tokenizer.encode(&prompt(text)).unwrap().dropped;
    assert_eq!(dropped("cat cat  Cat,\tCAT "), Some("Cat,\tCAT".to_owned()));
    assert_eq!(dropped("cat <|endoftext|> <|endoftext|> x"), Some("<|endoftext|> x".to_owned()));
    // The four bytes of the strawberry are four tokens: two fit, so the whole of it is named.
    assert_eq!(dropped("🍓 cat"), Some("🍓 cat".to_owned()));
    // Composed before it is cut, named as it was typed.
    assert_eq!(dropped("cate\u{301} Cafe\u{301}"), Some("e\u{301} Cafe\u{301}".to_owned()));
}

#[test]
fn the_end_is_kept_when_a_prompt_is_cut() {
    let golden = read_json("tokens-clip.json");
    let tokenizer = clip().open(77).unwrap();
    let long = "a long prompt, ".repeat(100);
    let tokens = tokenizer.encode(&prompt(&long)).unwrap();
    assert_eq!((tokens.ids.len(), tokens.ids[0], tokens.ids[76]), (77, 49_406, 49_407));
    assert!(tokens.dropped.is_some_and(|text| long.trim().ends_with(&text)));
    assert_eq!(golden["pad"], 49_407);
}

// The door

#[test]
fn a_prompt_is_at_most_4_kib() {
    assert_eq!(Prompt::new("x".repeat(PROMPT_MAX_BYTES)).unwrap().as_str().len(), 4096);
    let error = Prompt::new("한".repeat(34_134)).unwrap_err();
    assert_eq!(error, PromptTooLong { got: 102_402 });
    assert_eq!(error.to_string(), "the prompt has 102402 bytes, expected at most 4096: shorten it");
}

#[test]
fn a_prompt_of_the_largest_size_is_tokenized() {
    let tokenizer = clip().open(77).unwrap();
    for text in ["x", " ", "!", "<", "'s", "1", "é", "🍓", "a b ", "<|endoftext|>", "\u{301}", "\u{0}"] {
        let full = text.repeat(PROMPT_MAX_BYTES / text.len());
        assert_eq!(tokenizer.encode(&prompt(&full)).unwrap().ids.len(), 77, "{text:?}");
    }
}

// Files that are not trusted

#[test]
fn a_context_out_of_range_is_refused() {
    for context in [0, 2, 78, usize::MAX] {
        let error = small().open(context).map(|_| ()).unwrap_err();
        assert_eq!(error.to_string(), format!("a context of {context} tokens, expected 3 to 77"));
    }
}

#[test]
fn a_vocabulary_that_is_not_json_is_refused() {
    for vocab in [
        "",
        "[]",
        "{\"a\": -1}",
        "{\"a\": 1.5}",
        "{\"a\": 4294967296}",
        "{\"a\": \"b\"}",
        "{\"a\": null}",
        "{",
    ] {
        let files = Files { vocab: vocab.into(), ..small() };
        assert_eq!(files.error(), "vocab.json cannot be read", "{vocab}");
    }
    assert_eq!(Files { vocab: vec![0xff; 4], ..small() }.error(), "vocab.json cannot be read");
}

/// The small vocabulary with the id of one token replaced.
fn with_id(token: &str, id: u32) -> Files {
    let mut files = small();
    let mut vocab: Value = serde_json::from_slice(&files.vocab).unwrap();
    vocab[token] = json!(id);
    files.vocab = vocab.to_string().into_bytes();
    files
}

#[test]
fn an_id_beyond_the_vocabulary_is_refused() {
    for id in [516, u32::MAX] {
        let message =
            format!("vocab.json: token \"ca\" has id {id}, expected each of 0 to 516 (exclusive) once");
        assert_eq!(with_id("ca", id).error(), message);
    }
}

#[test]
fn an_id_that_is_used_twice_is_refused() {
    assert!(matches!(with_id("ca", 7).open(77), Err(TokenizerError::VocabId { id: 7, size: 516, .. })));
}

#[test]
fn a_vocabulary_without_a_byte_is_refused() {
    for missing in ["a", "Ā</w>"] {
        let tokens: Vec<String> = vocabulary("#version\n").into_iter().filter(|t| t != missing).collect();
        let files = Files { vocab: vocab_json(&tokens), merges: Vec::new(), ..small() };
        assert!(matches!(files.open(77), Err(TokenizerError::MissingByte { token }) if token == missing));
    }
}

#[test]
fn a_bad_merge_names_its_line() {
    let error = |merges: &[u8]| Files { merges: merges.to_vec(), ..small() }.error();
    let two = "expected two tokens with one space between";
    assert_eq!(error(b"#version: 0.2\nc a\n\nca t</w>\n"), format!("merges.txt line 3: {two}"));
    assert_eq!(error(b"c a t</w>"), format!("merges.txt line 1: {two}"));
    assert_eq!(error(b"ca"), format!("merges.txt line 1: {two}"));
    assert_eq!(error(b"c a\nd og"), "merges.txt line 2: token \"og\" is not in vocab.json");
    assert_eq!(error(b"c a\nc t"), "merges.txt line 2: token \"ct\" is not in vocab.json");
    assert_eq!(error(b"c a\n\xff a"), "merges.txt is not UTF-8");
}

#[test]
fn merges_may_be_empty_or_end_lines_with_a_carriage_return() {
    assert!(Files { merges: Vec::new(), ..small() }.open(77).is_ok());
    let tokenizer =
        Files { merges: b"#version: 0.2\r\nc a\r\nca t</w>\r\n".to_vec(), ..small() }.open(3).unwrap();
    assert_eq!(tokenizer.encode(&prompt("cat")).unwrap().ids, [514, 513, 515]);
}

#[test]
fn special_tokens_have_to_be_in_the_vocabulary() {
    let error = |config: Value| Files { config: config.to_string().into_bytes(), ..small() }.error();
    let missing = "vocab.json: no token \"<pad>\", which the tokenizer's configuration names";
    for key in ["bos_token", "eos_token", "unk_token", "pad_token"] {
        assert_eq!(error(json!({key: "<pad>"})), missing, "{key}");
        assert_eq!(error(json!({key: {"content": "<pad>"}})), missing, "{key}");
        assert_eq!(error(json!({key: 7})), "tokenizer_config.json cannot be read", "{key}");
    }
    assert_eq!(error(json!({"added_tokens_decoder": {"600": {"content": "<pad>"}}})), missing);
    assert_eq!(
        error(json!({"added_tokens_decoder": {"600": {"content": "cat</w>"}}})),
        "tokenizer_config.json: `added_tokens_decoder` gives \"cat</w>\" id 600, vocab.json another"
    );
    assert_eq!(
        error(json!({"added_tokens_decoder": {"-1": {"content": "cat</w>"}}})),
        "tokenizer_config.json cannot be read"
    );
    assert_eq!(error(json!([])), "tokenizer_config.json cannot be read");
    let map = Files { special_tokens_map: Some(b"{".to_vec()), ..small() };
    assert_eq!(map.error(), "special_tokens_map.json cannot be read");
}

#[test]
fn keys_that_are_null_or_unknown_take_the_defaults() {
    let config = json!({"bos_token": null, "pad_token": null, "tokenizer_class": "CLIPTokenizer", "errors": "replace"});
    let tokenizer = Files { config: config.to_string().into_bytes(), ..small() }.open(4).unwrap();
    assert_eq!(tokenizer.encode(&prompt("cat")).unwrap().ids, [514, 513, 515, 515]);
}
