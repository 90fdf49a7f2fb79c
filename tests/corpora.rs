//! The corpora of the fuzzers, replayed: what is valid is taken, what is not is refused with its cause.

#[path = "../fuzz/inputs.rs"]
mod inputs;

use std::path::{Path, PathBuf};

use tintype::engine::onnx;

fn corpus(name: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let read = |path: PathBuf| {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        (name, std::fs::read(path).unwrap())
    };
    paths.into_iter().map(read).collect()
}

fn replay(name: &str, run: impl Fn(&[u8]) -> Result<(), String>) {
    let (mut taken, mut refused) = (0, 0);
    for (case, content) in corpus(name) {
        match (case.starts_with("valid"), run(&content)) {
            (true, Ok(())) => taken += 1,
            (false, Err(reason)) => {
                assert!(reason.len() > 20, "{name} {case}: {reason}");
                println!("{name} {case}: {reason}");
                refused += 1;
            }
            (true, Err(reason)) => panic!("{name} {case} was refused: {reason}"),
            (false, Ok(())) => panic!("{name} {case} was taken"),
        }
    }
    assert!(taken > 0 && refused > 5, "{name}: {taken} taken, {refused} refused");
}

#[test]
fn headers_of_model_files() {
    replay("bundle", inputs::bundle);
}

#[test]
fn graphs_to_import() {
    replay("onnx", inputs::onnx);
}

/// Every valid graph with each of its bytes changed, in a stride that reaches all kinds of fields.
#[test]
fn damaged_graphs_are_refused_or_taken_but_never_crash() {
    std::panic::set_hook(Box::new(|_| ()));
    for (case, content) in corpus("onnx").into_iter().filter(|(case, _)| case.starts_with("valid")) {
        let stride = content.len().div_ceil(300);
        for at in (0..content.len()).step_by(stride) {
            for change in [0x01, 0x80, 0xff] {
                let mut damaged = content.clone();
                damaged[at] ^= change;
                let run = std::panic::catch_unwind(|| drop(inputs::onnx(&damaged)));
                assert!(run.is_ok(), "{case}: byte {at} ^ {change:#x}");
            }
            let run = std::panic::catch_unwind(|| drop(inputs::onnx(&content[..at])));
            assert!(run.is_ok(), "{case}: cut at byte {at}");
        }
    }
}

/// The graph whose weight lies in `weights.bin`, with that file made by `make`.
fn with_external(make: impl FnOnce(&Path)) -> Result<usize, String> {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model.onnx");
    let seed = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/onnx/external-missing");
    std::fs::copy(seed, &model).unwrap();
    make(&folder.path().join("weights.bin"));
    let imported = onnx::import(&model, &|_, at| [1, 4, 8, 8][at]).map_err(|error| error.to_string())?;
    let (name, constant) = imported.weights.iter().find(|(_, w)| w.shape().len() == 4).unwrap();
    constant.read(name, &imported.initialisers).map(|values| values.len()).map_err(|error| error.to_string())
}

type Make = Box<dyn FnOnce(&Path)>;

#[test]
fn external_data_is_a_plain_file_of_the_models_own_folder() {
    const LEN: usize = 64 * 4 * 3 * 3 * 4;
    let write = |path: &Path, len: usize| std::fs::write(path, vec![0; len]).unwrap();
    assert_eq!(with_external(|path| write(path, LEN)), Ok(LEN / 4));
    let elsewhere = tempfile::tempdir().unwrap();
    let other = elsewhere.path().join("other.bin");
    write(&other, LEN);
    let cases: [(&str, Make); 5] = [
        ("too short", Box::new(move |path| write(path, LEN - 1))),
        (
            "a symbolic link",
            Box::new({
                let other = other.clone();
                move |path| std::os::unix::fs::symlink(other, path).unwrap()
            }),
        ),
        (
            "a second name",
            Box::new({
                let other = other.clone();
                move |path| std::fs::hard_link(other, path).unwrap()
            }),
        ),
        (
            "a pipe",
            Box::new(|path| {
                assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
            }),
        ),
        ("a folder", Box::new(|path| std::fs::create_dir(path).unwrap())),
    ];
    for (case, make) in cases {
        let reason = with_external(make).expect_err(case);
        assert!(reason.contains("`w`"), "{case}: {reason}");
    }
}
