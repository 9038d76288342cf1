//! Running the binary, and golden cases to change.

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What a run came to.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Outcome {
    /// One JSON object per line.
    pub(crate) fn json(&self) -> Vec<Value> {
        let parse = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        self.stdout.lines().map(parse).collect()
    }

    /// The stdout of a run that went well.
    pub(crate) fn good(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.stdout
    }

    /// The stderr of a run that failed with this code: one line for an error, and never a panic.
    pub(crate) fn refused(self, code: i32) -> String {
        assert_eq!(self.code, code, "{self:?}");
        assert!(!self.stderr.contains("panicked"), "{self:?}");
        if code == 1 {
            assert_eq!(self.stderr.lines().filter(|line| line.starts_with("error: ")).count(), 1, "{self:?}");
        }
        self.stderr
    }
}

/// Runs the binary on whatever adapter the tests run on.
pub(crate) fn wgpu_attention<S: AsRef<std::ffi::OsStr>>(args: impl IntoIterator<Item = S>) -> Outcome {
    finish(&mut command(args))
}

/// The same, not started yet.
pub(crate) fn command<S: AsRef<std::ffi::OsStr>>(args: impl IntoIterator<Item = S>) -> Command {
    let mut words = launcher();
    words.push(env!("CARGO_BIN_EXE_wgpu-attention").into());
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).args(args);
    command
}

/// Runs the binary where there is no adapter.
pub(crate) fn without_adapter<S: AsRef<std::ffi::OsStr>>(args: impl IntoIterator<Item = S>) -> Outcome {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wgpu-attention"));
    // The loader finds no driver there, and no other backend is asked.
    command.args(args).env("VK_DRIVER_FILES", "/nowhere").env("VK_ICD_FILENAMES", "/nowhere");
    finish(command.env("WGPU_BACKEND", "vulkan"))
}

fn finish(command: &mut Command) -> Outcome {
    // Everything relative is relative to the workspace.
    let output =
        command.current_dir(workspace()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    Outcome {
        code: output.status.code().unwrap_or_else(|| panic!("{command:?}: {output:?}")),
        stdout: String::from_utf8(output.stdout).expect("UTF-8"),
        stderr: String::from_utf8(output.stderr).expect("UTF-8"),
    }
}

/// What has to stand before a program that needs the adapter. `cargo xtask` sets cargo's runner, which starts the tests; the
/// runner in turn names itself to what it starts.
fn launcher() -> Vec<String> {
    if let Ok(script) = std::env::var("WGPU_ATTENTION_LAUNCHER") {
        return vec![script];
    }
    let is_runner = |name: &str| name.starts_with("CARGO_TARGET_") && name.ends_with("_RUNNER");
    let runner = std::env::vars().find(|(name, _)| is_runner(name));
    runner.map_or_else(Vec::new, |(_, words)| words.split_whitespace().map(Into::into).collect())
}

pub(crate) fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package lies in the workspace")
}

pub(crate) fn golden(name: &str) -> PathBuf {
    workspace().join("golden").join(name).with_extension("safetensors")
}

/// A folder that goes away.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    /// `name` is the test's own.
    pub(crate) fn new(name: &str) -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a scratch folder");
        Self(folder)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn file(&self, name: &str) -> String {
        self.0.join(name).to_str().expect("UTF-8").into()
    }

    /// The names of what is in it.
    pub(crate) fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.0).expect("the scratch folder");
        let mut names: Vec<_> = entries
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Left behind is no harm.
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// A safetensors file to look into or to change.
#[derive(Debug, Clone, Default)]
pub(crate) struct File {
    pub(crate) tensors: BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>,
    /// The metadata `case`.
    pub(crate) case: Value,
}

impl File {
    pub(crate) fn read(path: impl AsRef<Path>) -> Self {
        let bytes =
            std::fs::read(path.as_ref()).unwrap_or_else(|error| panic!("{:?}: {error}", path.as_ref()));
        let (_, header) = SafeTensors::read_metadata(&bytes).expect("safetensors");
        let case = header.metadata().as_ref().and_then(|metadata| metadata.get("case"));
        let case = case.map_or(Value::Null, |text| serde_json::from_str(text).expect("JSON"));
        let file = SafeTensors::deserialize(&bytes).expect("safetensors");
        let tensor = |(name, view): (&str, TensorView<'_>)| {
            (name.to_owned(), (view.dtype(), view.shape().to_vec(), view.data().to_vec()))
        };
        Self { tensors: file.iter().map(tensor).collect(), case }
    }

    pub(crate) fn golden(name: &str) -> Self {
        Self::read(golden(name))
    }

    /// With the case as a text of our own.
    pub(crate) fn write_text(&self, path: impl AsRef<Path>, case: Option<&str>) {
        let views = self.tensors.iter().map(|(name, (dtype, shape, data))| {
            (name.as_str(), TensorView::new(*dtype, shape.clone(), data).expect("a tensor"))
        });
        let metadata = case.map(|case| HashMap::from([("case".to_owned(), case.to_owned())]));
        let bytes = safetensors::serialize(views, metadata).expect("a file");
        std::fs::write(path, bytes).expect("written");
    }

    pub(crate) fn write(&self, path: impl AsRef<Path>) {
        self.write_text(path, Some(&self.case.to_string()));
    }

    pub(crate) fn floats(&self, name: &str) -> Vec<f32> {
        let (dtype, _, data) = &self.tensors[name];
        assert_eq!(*dtype, Dtype::F32, "{name}");
        data.chunks_exact(4)
            .map(|bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
            .collect()
    }

    pub(crate) fn shape(&self, name: &str) -> &[usize] {
        &self.tensors[name].1
    }

    pub(crate) fn set_floats(&mut self, name: &str, shape: &[usize], values: &[f32]) {
        let data = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        self.tensors.insert(name.into(), (Dtype::F32, shape.to_vec(), data));
    }

    pub(crate) fn set_indices(&mut self, name: &str, shape: &[usize], values: &[i32]) {
        let data = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        self.tensors.insert(name.into(), (Dtype::I32, shape.to_vec(), data));
    }

    /// Changes one element.
    pub(crate) fn change(&mut self, name: &str, index: usize, change: impl FnOnce(f32) -> f32) {
        let (mut values, shape) = (self.floats(name), self.shape(name).to_vec());
        values[index] = change(values[index]);
        self.set_floats(name, &shape, &values);
    }
}

/// A case of our own making.
pub(crate) fn case(op: &str, keys: Value, tensors: &[(&str, &[usize], &[f32])]) -> File {
    let mut file = File { case: keys, ..Default::default() };
    (file.case["op"], file.case["name"]) = (op.into(), op.into());
    tensors.iter().for_each(|(name, shape, values)| file.set_floats(name, shape, values));
    file
}

/// Passes in every element type, on the reference and on an adapter.
pub(crate) fn assert_passes(scratch: &Scratch, name: &str, file: &File) {
    let path = scratch.file(&format!("{name}.safetensors"));
    file.write(&path);
    let lines =
        wgpu_attention(["verify", &path, "--json", "--adapter", "0", "--dtype", "f32,f16,bf16"]).json();
    assert_eq!(lines.len(), 4, "{name}: {lines:?}");
    lines.iter().for_each(|line| assert_eq!(line["status"], "pass", "{name}: {line}"));
}
