//! `tintype explain`: the sheet, its numbers, and what is refused.

use super::*;

/// Explains with the model here, in two steps.
fn explain(place: &Place, more: &[&str]) -> Output {
    let model = place.model.to_str().unwrap();
    let args = ["explain", "a red box", "--model", model, "--width", "16", "--height", "16", "--seed", "5"];
    let steps = if more.contains(&"--steps") { &[][..] } else { &["--steps", "2"] };
    place.run([&args, steps, more].concat())
}

#[test]
fn a_sheet_and_its_numbers() {
    let place = Place::new();
    let said = works(&explain(&place, &["-o", "a.png"]));
    assert_eq!(said, "a.png (seed 5)\n");
    let report = works(&explain(&place, &["-o", "b.png", "--json"]));
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    let bytes = |name: &str| std::fs::read(place.path(name)).unwrap();
    assert_eq!(bytes("a.png"), bytes("b.png"));
    assert_eq!(place.names(), ["a.png", "b.png", "tiny.tintype"]);

    let sheet = tintype::pipeline::read_picture(&place.path("a.png")).unwrap();
    assert_eq!([&report["width"], &report["height"]], [sheet.width_px(), sheet.height_px()]);
    assert_eq!(sheet.width_px(), tintype::sheet::WIDTH_PX);
    assert_eq!((&report["path"], &report["seed"]), (&"b.png".into(), &5.into()));
    assert_eq!(report["noise"], serde_json::json!([199, 399, 599, 799, 999]));
    let step = |step: u64, timestep: f64| serde_json::json!({ "step": step, "timestep": timestep, "similarity": null });
    assert_eq!(report["steps"], serde_json::json!([step(1, 999.0), step(2, 499.0)]));
    let words = report["words"].as_array().unwrap();
    assert_eq!(
        words.iter().map(|word| word["word"].as_str().unwrap()).collect::<Vec<_>>(),
        ["a", "red", "box"]
    );
    for word in words {
        let peak = &word["peak"];
        assert!(peak["x"].as_u64().unwrap() < 16 && peak["y"].as_u64().unwrap() < 16, "{peak}");
        assert!((0.0..1.0).contains(&peak["attention"].as_f64().unwrap()), "{peak}");
    }
}

#[test]
fn the_shipped_model_says_how_like_the_prompt_each_step_is() {
    let place = Place::new();
    let model = fixture::root("models/emoji.tintype");
    let model = model.to_str().unwrap();
    let prompt = "분홍색 배경의 판다";
    let drawn =
        |command: &'static str| [command, prompt, "--model", model, "--steps", "2", "--seed", "7", "--json"];
    let json = |output: Output| serde_json::from_str::<serde_json::Value>(&works(&output)).unwrap();
    let report = json(place.run(drawn("explain")));
    let sheet = tintype::pipeline::read_picture(&place.path("sheet.png")).unwrap();
    assert_eq!(report["height"], sheet.height_px());
    let words = report["words"].as_array().unwrap().iter().map(|word| word["word"].as_str().unwrap());
    assert_eq!(words.collect::<Vec<_>>(), ["분홍색", "배경의", "판다"]);
    // What the last step predicts is the finished picture.
    json(place.run(drawn("generate")));
    let ranked = json(place.run(["rank", model, prompt, "out.png", "--json"]));
    let likeness = |report: &serde_json::Value| report["similarity"].as_f64().unwrap();
    let (shown, ranked) = (likeness(&report["steps"][1]), likeness(&ranked["ranking"][0]));
    assert!((shown - ranked).abs() < 1e-3, "{shown} and {ranked}");
    assert!(likeness(&report["steps"][0]) != shown);
}

#[test]
fn sheets_that_cannot_be_drawn() {
    let place = Place::new();
    fails(&explain(&place, &["--steps", "51"]), 2, &["a sheet shows every step, up to 50, and not 51"]);
    fails(&explain(&place, &["--steps", "0"]), 2, &["0 steps asked for"]);
    fails(&explain(&place, &["-o", "no/such/sheet.png"]), 1, &["cannot write to the folder"]);
    fails(&explain(&place, &["-o", "."]), 1, &["is a folder"]);
    fails(&explain(&place, &["--guidance", "-1"]), 2, &["guidance scale is -1"]);
    fails(&explain(&place, &["--memory", "1M"]), 5, &["MB are allowed"]);
    fails(&place.run(["explain", "a", "--model", "none.tintype"]), 3, &["none.tintype"]);
    assert_eq!(place.names(), ["tiny.tintype"]);
}
