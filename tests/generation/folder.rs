//! Hugging Face's layout.

use crate::model::{Model, golden, text};
use serde_json::json;
use std::path::{Path, PathBuf};
use wgpu_attention_models::{Error, Folder, Generator, GeneratorOptions};
use wgpu_attention_testing::gpu;

/// A folder that goes away.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        Self(folder)
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        std::fs::write(self.0.join(name), bytes).expect("written");
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

fn logits(path: &Path) -> Result<Vec<f32>, Error> {
    let folder = Folder::open(path)?;
    let mut generator = Generator::new(gpu(), &folder.file()?, GeneratorOptions::new(32))?;
    Ok(generator.feed(&text(9))?.to_vec())
}

#[test]
fn one_file_or_shards_or_a_golden_file() {
    let (model, scratch) = (Model::gpt2(), Scratch::new("shards"));
    let mut generator = model.generator(GeneratorOptions::new(32)).expect("a generator");
    let want = generator.feed(&text(9)).expect("logits").to_vec();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/e2e_gpt2.safetensors");
    assert_eq!(logits(&path).expect("a golden file"), want);

    scratch.write("config.json", model.config.to_string());
    let wrong = logits(&scratch.0).expect_err("no weights").to_string();
    assert!(
        wrong.ends_with("need model.safetensors or model.safetensors.index.json, found neither"),
        "{wrong}"
    );
    // Tensors in turn to two files.
    let mut halves = [model.clone(), model.clone()];
    let mut map = serde_json::Map::new();
    for (n, name) in model.tensors.keys().enumerate() {
        halves[1 - n % 2].tensors.remove(name);
        map.insert(name.clone(), format!("part-{}.safetensors", n % 2).into());
    }
    scratch.write("part-0.safetensors", halves[0].bytes());
    scratch.write("model.safetensors.index.json", json!({ "weight_map": map }).to_string());
    let wrong = logits(&scratch.0).expect_err("half").to_string();
    assert!(wrong.starts_with("cannot read") && wrong.contains("part-1.safetensors"), "{wrong}");
    scratch.write("part-1.safetensors", halves[1].bytes());
    assert_eq!(logits(&scratch.0).expect("two files"), want);
    map.insert("transformer.more".into(), "part-0.safetensors".into());
    scratch.write("model.safetensors.index.json", json!({ "weight_map": map }).to_string());
    let wrong = logits(&scratch.0).expect_err("more").to_string();
    let need = "tensor `transformer.more`: need it in part-0.safetensors, found none of this name";
    assert!(wrong.ends_with(need), "{wrong}");
    map.insert("transformer.more".into(), "../part-0.safetensors".into());
    scratch.write("model.safetensors.index.json", json!({ "weight_map": map }).to_string());
    let wrong = logits(&scratch.0).expect_err("elsewhere").to_string();
    assert!(wrong.contains("tensor `transformer.more`: need a file's name, found \"../part"), "{wrong}");

    // One file counts before an index, alone or in its folder.
    scratch.write("model.safetensors", model.bytes());
    assert_eq!(logits(&scratch.0).expect("one file"), want);
    assert_eq!(logits(&scratch.0.join("model.safetensors")).expect("one file"), want);
    scratch.write("model.safetensors", &golden("e2e_gpt2")[..1000]);
    assert!(logits(&scratch.0).is_err());
    scratch.write("config.json", "{");
    let wrong = logits(&scratch.0).expect_err("half a configuration").to_string();
    assert!(wrong.contains("config.json: EOF"), "{wrong}");
}

#[test]
fn ids_that_end_a_text() {
    let (model, scratch) = (Model::gpt2(), Scratch::new("ends"));
    scratch.write("model.safetensors", model.bytes());
    let ends = |config: serde_json::Value| {
        scratch.write("config.json", model.clone().with("eos_token_id", config).config.to_string());
        Folder::open(&scratch.0).map(|folder| folder.ends().to_vec()).map_err(|e| e.to_string())
    };
    assert_eq!(ends(json!(null)), Ok(vec![]));
    assert_eq!(ends(json!(7)), Ok(vec![7]));
    assert_eq!(ends(json!([7, 9])), Ok(vec![7, 9]));
    let wrong = "config `eos_token_id`: need an id, or a list of ids, found -1";
    assert_eq!(ends(json!(-1)), Err(wrong.into()));
    // What is said for generation counts first.
    scratch.write("generation_config.json", json!({ "eos_token_id": [3] }).to_string());
    assert_eq!(ends(json!(7)), Ok(vec![3]));
    scratch.write("generation_config.json", json!({ "do_sample": true }).to_string());
    assert_eq!(ends(json!(7)), Ok(vec![7]));
}
