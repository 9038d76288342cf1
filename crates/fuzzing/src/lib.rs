//! What takes untrusted input, one function a target: no input may make it panic, hang or allocate without bound. The targets
//! in `fuzz/fuzz_targets/` run them under libFuzzer; `tests/seeds.rs` replays `fuzz/seeds/` in the ordinary suite.
//!
//! Each says whether the input was good, and why not; how sizes are bounded is said there.

mod file;

use arbitrary::{Result as Drawn, Unstructured};
use wgpu_attention::{AnyPattern, BlockGrid, BlockLayout, BlockMask, Blocks, Parts, Pattern};

/// Why an input was refused.
pub type Refused = Box<dyn std::error::Error + Send + Sync>;

/// A user's layout of blocks, from cells or from lists of columns, each head its own: as a mask.
pub fn layouts(bytes: &[u8]) -> Result<(), Refused> {
    let mut draw = Unstructured::new(bytes);
    let grid = grid(&mut draw)?;
    // Small enough that some fit the grid.
    let block = match draw.int_in_range(0..=3)? {
        0 => draw.arbitrary()?,
        _ => draw.int_in_range(0..=64)?,
    };
    let layout = if draw.arbitrary()? {
        let sizes = [(); 3].map(|()| size(&mut draw, 4));
        let [heads, rows, columns] = sizes;
        BlockLayout::new([heads?, rows?, columns?], draw.arbitrary_iter()?.flatten().collect::<Vec<bool>>())?
    } else {
        let k_blocks = size(&mut draw, 8)?;
        let heads: Vec<Vec<Vec<u32>>> = draw.arbitrary()?;
        BlockLayout::from_columns(k_blocks, &heads)?
    };
    masks(&Blocks { block, layout }, grid)
}

/// A pattern's text, over a small grid: JSON or short.
pub fn pattern(bytes: &[u8]) -> Result<(), Refused> {
    let mut draw = Unstructured::new(bytes);
    let grid = grid(&mut draw)?;
    let pattern = AnyPattern::parse(std::str::from_utf8(draw.take_rest())?)?;
    assert_eq!(AnyPattern::parse(&pattern.to_json())?, pattern, "read back from {}", pattern.to_json());
    masks(&pattern, grid)
}

/// A golden case: as it is, and put together as [`file`] describes. Read, checked, and computed on the CPU.
pub fn case(bytes: &[u8]) -> Result<(), Refused> {
    // As it is, it is hardly ever good, and what is good is found the other way.
    let _ = wgpu_attention_cli::verify_on_cpu(bytes.to_vec());
    Ok(wgpu_attention_cli::verify_on_cpu(file::of_text(bytes)?)?)
}

/// As [`case`], for a model: its seeds are models, and inputs of other operations are left to [`case`].
pub fn model(bytes: &[u8]) -> Result<(), Refused> {
    if !bytes.windows(7).any(|word| word == b"\"model\"") {
        return Err("no model".into());
    }
    case(bytes)
}

/// Sizes at which a scan of all pairs takes milliseconds.
fn grid(draw: &mut Unstructured<'_>) -> Drawn<BlockGrid> {
    let [q_len, kv_len, batch, heads] =
        [(0, 100), (0, 100), (0, 2), (0, 3)].map(|(least, most)| draw.int_in_range(least..=most));
    let mut block = || Ok(16 << draw.int_in_range(0..=4)?);
    Ok(BlockGrid::new(q_len?, kv_len?).batch(batch?).heads(heads?).blocks(block()?, block()?))
}

/// Mostly up to `most`, at times anything.
fn size(draw: &mut Unstructured<'_>, most: usize) -> Drawn<usize> {
    if draw.ratio(1, 8)? { draw.arbitrary() } else { draw.int_in_range(0..=most) }
}

/// A pattern's masks: in closed form as by scan, and in parts as whole.
fn masks(pattern: &dyn Pattern, grid: BlockGrid) -> Result<(), Refused> {
    let mask = BlockMask::new(pattern, grid)?;
    assert_eq!(mask, BlockMask::scan(pattern, grid)?, "in closed form\n{mask}");
    let parts = Parts::lower(pattern, grid)?;
    parts.check_disjoint()?;
    assert_eq!(parts.kept(), mask.kept(), "pairs in parts");
    mask.packed();
    mask.transpose()?;
    Ok(())
}
