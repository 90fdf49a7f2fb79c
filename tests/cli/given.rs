//! Pictures from given ones: flags, files that are not what they should be, and what is said then.

use super::*;

/// A place with a picture and a mask in it.
fn place() -> Place {
    let place = Place::new();
    for name in ["picture.png", "mask.png"] {
        std::fs::copy(fixture::data("given").join(name), place.path(name)).unwrap();
    }
    place
}

#[test]
fn a_picture_and_a_mask_are_drawn_over() {
    let place = place();
    let draw = |more: &[&str]| {
        let given = ["--init-image", "picture.png", "--steps", "4", "--seed", "3", "--json"];
        let report = works(&place.draw(&[&given[..], more].concat()));
        serde_json::from_str::<serde_json::Value>(&report).unwrap()["images"][0]["sha256"].clone()
    };
    let whole = draw(&[]);
    assert_eq!(draw(&["--strength", "0.8"]), whole, "the default");
    assert_ne!(draw(&["--strength", "0.5"]), whole);
    let masked = draw(&["--mask", "mask.png"]);
    assert_eq!(draw(&["--mask", "mask.png", "--strength", "1"]), masked, "the default");
    assert_ne!(masked, whole);
    let picture = String::from_utf8_lossy(&std::fs::read(place.path("out.png")).unwrap()).into_owned();
    assert!(picture.contains("\"masked\":true,\"strength\":1.0"), "the manifest says what it began from");
}

#[test]
fn given_pictures_that_cannot_be_used() {
    let place = place();
    let refuse = |code, more: &[&str], says: &[&str]| {
        fails(&place.draw(&[&["--steps", "5", "-o", "no.png"], more].concat()), code, says);
    };
    let from = |name: &str, code, says: &[&str]| refuse(code, &["--init-image", name], says);
    for name in ["deep.png", "grey.png", "alpha.png", "cmyk.jpg", "turned.jpg"] {
        std::fs::copy(fixture::data("pictures").join(name), place.path(name)).unwrap();
        works(&place.draw(&["--init-image", name, "--steps", "2", "-o", "yes.png"]));
    }
    let whole = std::fs::read(place.path("picture.png")).unwrap();
    std::fs::write(place.path("cut.png"), &whole[..whole.len() / 2]).unwrap();
    std::fs::write(place.path("text.png"), "no picture").unwrap();
    std::fs::copy(fixture::data("pictures/animated.webp"), place.path("animated.webp")).unwrap();
    from("none.png", 1, &["cannot read none.png"]);
    from("text.png", 1, &["text.png", "PNG, JPEG, WebP or BMP"]);
    from("cut.png", 1, &["cut.png", "cannot decode"]);
    from("animated.webp", 1, &["animated.webp", "animation"]);
    refuse(1, &["--init-image", "picture.png", "--mask", "cut.png"], &["cut.png"]);
    refuse(2, &["--init-image", "picture.png", "--mask", "grey.png"], &["61 x 37", "70 x 54", "one size"]);
    refuse(2, &["--mask", "mask.png"], &["--init-image"]);
    refuse(2, &["--strength", "0.5"], &["--init-image"]);
    for strength in ["0", "-1", "1.01", "nan"] {
        refuse(2, &["--init-image", "picture.png", "--strength", strength], &["strength", "more than 0"]);
    }
    refuse(2, &["--init-image", "picture.png", "--strength", "0.1"], &["0.1", "none of 5 steps"]);
    refuse(2, &["--init-image", "picture.png", "--width", "7"], &["width", "7"]);
    refuse(5, &["--init-image", "picture.png", "--memory", "9M"], &["9.0 MB"]);
    assert!(!place.path("no.png").exists());
}

#[test]
fn a_model_without_an_encoder_says_so() {
    let place = place();
    copy_folder(&fixture::data("tiny"), &place.path("source"));
    std::fs::remove_dir_all(place.path("source/vae_encoder")).unwrap();
    works(&place.run(["import", "source", "-o", "half.tintype"]));
    let args = ["generate", "x", "--model", "half.tintype", "--init-image", "picture.png"];
    fails(&place.run(args), 2, &["vae_encoder", "import"]);
}
