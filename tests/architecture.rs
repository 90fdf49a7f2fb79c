//! The sources against `docs/architecture.md`: floors, unsafe zones, dependencies, places, sizes.
//!
//! The tables of that document are the rules; this reads them, and the sources as text. No check knows a module
//! by name, so a change of the architecture is a change of the document.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Above this a file holds more than one noun.
const LINES_MAX: usize = 400;
/// Files that may be longer, with the reason.
const LONG: &[(&str, &str)] = &[];

/// A source file: its path under `src`, as it is, and its code without comments and the contents of strings.
struct Source {
    path: String,
    text: String,
    code: String,
}

impl Source {
    /// The module path: `a/b/mod.rs` and `a/b.rs` are `[a, b]`, the roots are empty.
    fn module(&self) -> Vec<&str> {
        let path = self.path.trim_end_matches(".rs").trim_end_matches("/mod");
        path.split('/').filter(|part| !matches!(*part, "lib" | "main")).collect()
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn sources() -> Vec<Source> {
    let mut sources = Vec::new();
    collect(&root().join("src"), &mut sources);
    assert!(sources.len() > 50, "only {} sources were found", sources.len());
    sources
}

fn collect(folder: &Path, sources: &mut Vec<Source>) {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            collect(&path, sources);
        } else if path.extension().is_some_and(|e| e == "rs") {
            let text = read(&path);
            let name = path.strip_prefix(root().join("src")).unwrap().to_str().unwrap().to_owned();
            sources.push(Source { path: name, code: code(&text), text });
        }
    }
}

/// `text` with comments and the contents of strings left out; lines stay lines.
fn code(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let len = match c {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '"' => string_len(rest, code.chars().next_back()),
            '\'' => char_len(rest),
            _ => 0,
        };
        if len == 0 {
            code.push(c);
            rest = &rest[c.len_utf8()..];
        } else {
            code.extend(rest[..len].chars().filter(|&c| c == '\n'));
            rest = &rest[len..];
        }
    }
    code
}

/// The length of the string literal that `rest` starts with; `before` is what stands before its quote.
fn string_len(rest: &str, before: Option<char>) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match (before, c) {
            (Some('#'), '"') if rest[at..].starts_with("\"#") => return at + 2,
            (Some('#'), _) => {}
            (_, '"') if !escaped => return at + 1,
            (Some('r'), _) => {}
            (_, c) => escaped = c == '\\' && !escaped,
        }
    }
    rest.len()
}

/// The length of the character literal that `rest` starts with; 0 for a lifetime.
fn char_len(rest: &str) -> usize {
    let inner = &rest[1..];
    let from = if inner.starts_with('\\') { 2 } else { inner.chars().next().map_or(0, char::len_utf8) };
    match inner.get(from..).and_then(|after| after.find('\'')) {
        Some(0) => from + 2,
        Some(more) if inner.starts_with('\\') => from + more + 2,
        _ => 0,
    }
}

/// The cells of the table under a heading of the document, without its first row.
fn table(heading: &str) -> Vec<Vec<String>> {
    let document = read("docs/architecture.md");
    let lines = document.lines().skip_while(|line| line.trim_start_matches('#').trim() != heading);
    let lines = lines.skip(1).take_while(|line| !line.starts_with('#')).filter(|line| line.starts_with('|'));
    let rows: Vec<Vec<String>> = lines
        .skip(2)
        .map(|line| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect())
        .collect();
    assert!(!rows.is_empty(), "docs/architecture.md has no table under `{heading}`");
    rows
}

/// What stands between backticks.
fn items(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

/// The floor of every module.
fn floors() -> BTreeMap<String, usize> {
    let rows = table("Floors");
    let floors = rows.iter().flat_map(|row| {
        let floor = row[0].parse().unwrap_or_else(|_| panic!("`{}` is no floor", row[0]));
        items(&row[1]).into_iter().map(move |module| (module.to_owned(), floor))
    });
    floors.collect()
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The word that `text` starts with.
fn word(text: &str) -> &str {
    &text[..text.find(|c| !is_word(c)).unwrap_or(text.len())]
}

/// The places after each `path` that stands in `code` as a path of its own.
fn after<'a>(code: &'a str, path: &str) -> Vec<&'a str> {
    let found = code.match_indices(path);
    let whole = found.filter(|(at, _)| !code[..*at].ends_with(|c: char| is_word(c) || c == ':'));
    whole.map(|(at, _)| &code[at + path.len()..]).collect()
}

/// The top-level modules that a source names, by `crate::` or by enough `super::`.
fn imports(source: &Source) -> Vec<String> {
    let mut imports = Vec::new();
    for rest in after(&source.code, "crate::") {
        assert!(!rest.starts_with('{'), "{}: write one `use crate::module` for each module", source.path);
        imports.push(word(rest).to_owned());
    }
    for mut rest in after(&source.code, "super::") {
        let mut up = 1;
        while let Some(further) = rest.strip_prefix("super::") {
            (rest, up) = (further, up + 1);
        }
        if up >= source.module().len() {
            imports.push(word(rest).to_owned());
        }
    }
    imports
}

#[test]
fn the_document_has_the_modules_of_the_library() {
    let library = code(&read("src/lib.rs"));
    let modules: BTreeSet<&str> = library.lines().filter_map(|line| line.strip_prefix("pub mod ")).collect();
    let modules: BTreeSet<&str> = modules.into_iter().map(|module| module.trim_end_matches(';')).collect();
    let floors = floors();
    assert_eq!(floors.keys().map(String::as_str).collect::<BTreeSet<_>>(), modules);
    assert!(
        library.lines().all(|line| !line.starts_with("mod ")),
        "every module has a floor, private ones too"
    );
}

#[test]
fn imports_point_to_lower_floors() {
    let floors = floors();
    for source in sources() {
        let Some(own) = source.module().first().map(|module| (*module).to_owned()) else { continue };
        for import in imports(&source).into_iter().filter(|import| *import != own) {
            if let Some(floor) = floors.get(&import) {
                let own_floor = floors.get(&own).unwrap_or_else(|| panic!("`{own}` has no floor"));
                assert!(floor < own_floor, "{}: `{own}` may not import `{import}`", source.path);
            }
        }
    }
}

#[test]
fn the_program_is_the_command_line() {
    let main = code(&read("src/main.rs"));
    let named: BTreeSet<&str> = after(&main, "tintype::").into_iter().map(word).collect();
    assert_eq!(named, BTreeSet::from(["allocator", "cli"]));
}

#[test]
fn unsafe_code_stays_in_its_zones() {
    let rows = table("Unsafe code");
    let zones: BTreeSet<&str> = rows.iter().flat_map(|row| items(&row[0])).collect();
    let sources = sources();
    let mut open = BTreeSet::new();
    for source in &sources {
        if source.code.contains("allow(unsafe_code") || source.code.contains("expect(unsafe_code") {
            open.insert(source.path.as_str());
        }
        if !zones.contains(source.path.as_str()) {
            assert!(
                after(&source.code, "unsafe").iter().all(|rest| is_word(rest.chars().next().unwrap_or(' ')))
            );
        }
    }
    assert_eq!(open, zones);
    assert!(code(&read("src/lib.rs")).contains("#![deny(unsafe_code)]"));
}

#[test]
fn unsafe_code_says_why_it_is_sound() {
    for source in sources() {
        let text: Vec<&str> = source.text.lines().collect();
        for (at, line) in source.code.lines().enumerate() {
            for rest in after(line, "unsafe ") {
                let promise = rest.starts_with("fn") || rest.starts_with("trait");
                let wanted = if promise { "# Safety" } else { "// SAFETY: " };
                let place = format!("{}:{}: `{wanted}` is missing", source.path, at + 1);
                assert!(comment_above(&text[..at]).contains(wanted), "{place}");
            }
        }
    }
}

/// The comment over the statement that ends `above`; attributes and the statement's first lines may stand between.
fn comment_above(above: &[&str]) -> String {
    let is_comment = |line: &&&str| line.trim_start().starts_with("//");
    let between = above.iter().rev().take(3).take_while(|line| !is_comment(line));
    let between =
        between.take_while(|line| !line.trim_end().ends_with([';', '}']) && !line.is_empty()).count();
    let lines: Vec<&str> =
        above.iter().rev().skip(between).take_while(is_comment).map(|line| line.trim_start()).collect();
    lines.join("\n")
}

/// The dependencies of the manifest, as code spells them.
fn dependencies() -> BTreeSet<String> {
    let manifest = read("Cargo.toml");
    let mut inside = false;
    let mut names = BTreeSet::new();
    for line in manifest.lines() {
        if line.starts_with('[') {
            inside = line == "[dependencies]"
                || (line.starts_with("[target.") && line.ends_with(".dependencies]"));
        } else if let (true, Some((name, _))) = (inside && !line.starts_with('#'), line.split_once('=')) {
            names.insert(name.trim().replace('-', "_"));
        }
    }
    names
}

#[test]
fn each_dependency_is_named_where_the_document_says() {
    let rows = table("Dependencies");
    let sources = sources();
    let mut listed = BTreeSet::new();
    for row in &rows {
        let places = items(&row[1]);
        for dependency in items(&row[0]).into_iter().map(|name| name.replace('-', "_")) {
            let path = format!("{dependency}::");
            let named: Vec<&str> = sources
                .iter()
                .filter(|s| !after(&s.code, &path).is_empty())
                .map(|s| s.path.as_str())
                .collect();
            for file in &named {
                let allowed = places.is_empty() || places.iter().any(|place| is_in(file, place));
                assert!(allowed, "{file} may not name {dependency}");
            }
            for place in &places {
                assert!(named.iter().any(|file| is_in(file, place)), "{place} does not name {dependency}");
            }
            assert!(!named.is_empty(), "nothing names {dependency}: take it out of Cargo.toml");
            listed.insert(dependency);
        }
    }
    assert_eq!(listed, dependencies());
}

/// Whether a file is the place, or in it if the place is a folder.
fn is_in(file: &str, place: &str) -> bool {
    file == place || (place.ends_with('/') && file.starts_with(place))
}

#[test]
fn every_file_has_a_line_in_the_document() {
    let rows = table("Where things are");
    let places: BTreeSet<&str> = rows.iter().flat_map(|row| items(&row[0])).collect();
    let sources = sources();
    let mut met = BTreeSet::new();
    for source in &sources {
        let folder = source.path.rfind('/').map_or("", |at| &source.path[..=at]);
        let place = if folder.is_empty() { source.path.as_str() } else { folder };
        assert!(places.contains(place), "docs/architecture.md has no line for src/{place}");
        met.insert(place);
    }
    assert_eq!(met, places, "docs/architecture.md has lines for what is not there");
}

#[test]
fn no_file_is_long() {
    for source in sources() {
        let lines = source.text.lines().count();
        let excused = LONG.iter().any(|(path, _)| *path == source.path);
        assert!(lines <= LINES_MAX || excused, "{} has {lines} lines: one noun per file", source.path);
    }
}

#[test]
fn comments_and_strings_are_no_code() {
    assert_eq!(code("a // unsafe\nb"), "a \nb");
    assert_eq!(code(r#"f("crate::x \" //", '"', '\'', 'b') g::<'a>(r"\") // c"#), "f(, , , ) g::<'a>(r) ");
    assert_eq!(code("let x = \"one\n two\"; // three"), "let x = \n; ");
    assert_eq!(
        after("use crate::a; pub(crate::b) xcrate::c", "crate::"),
        ["a; pub(crate::b) xcrate::c", "b) xcrate::c"]
    );
}
