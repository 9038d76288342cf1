//! Every element at or below its bound: where tensors lie, and how the work is cut. All calls run with NaN in the gaps
//! of the inputs and guarded gaps in the outputs.

use crate::support::{
    Case, Checked, Cut, Placement, bound, bound_of_parts, check_all, count, cut, gather, gpu_with,
    has_subgroups, picked,
};
use wgpu_attention::ElementType::{Bf16, F16, F32};
use wgpu_attention::reference::Kind;
use wgpu_attention::wgsl::{DirectTile, GpuFamily, StagedTile, Tile, TileKind};
use wgpu_attention::{AttentionShape, Causal, Full, Layouts, Options, Storage};

/// By turns random, and numbers that tell their own place.
const KINDS: [Kind; 2] = [Kind::Normal, Kind::Arange];

#[test]
fn layouts() {
    use Placement::{Bhld, Blhd, BlhdGap, Gap, PackedQkv, SharedKv};
    let mut cases = vec![];
    for element in [F32, F16, Bf16] {
        for dim in [16, 7] {
            let shape = AttentionShape::new(2, 4, 70, dim).kv_heads(2).storage(Storage::all(element));
            // 4 and 8 keep rows on whole groups of four; with the others a row may begin in the middle of a word.
            for placement in
                [Bhld, Blhd, PackedQkv, Gap(1), Gap(3), Gap(4), Gap(8), BlhdGap(2), BlhdGap(4), SharedKv]
            {
                cases.extend(KINDS.map(|kind| Case::new(placement.apply(&shape)).pattern(Causal).kind(kind)));
            }
        }
    }
    check_all("layouts", cases, bound);
}

#[test]
fn each_tensor_in_a_layout_of_its_own() {
    let (q_len, kv_len) = (67, 80);
    let mut cases = vec![];
    for (q, k, v, out) in [(1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1), (3, 4, 2, 5), (0, 8, 4, 1)]
    {
        let base = AttentionShape::new(2, 2, q_len, 16).kv_len(kv_len).value_dim(8);
        let gap = |gap| Placement::Gap(gap).layouts(&base);
        let case = Case::new(base.layouts(Layouts::all(gap(q).q).k(gap(k).k).v(gap(v).v).out(gap(out).out)));
        cases.extend(KINDS.map(|kind| case.clone().kind(kind)));
        if q > 0 {
            cases.extend(KINDS.map(|kind| case.clone().storage(Storage::all(F16)).kind(kind)));
        }
    }
    check_all("each_tensor_in_a_layout_of_its_own", cases, bound);
}

/// Tensors that begin behind the start of their binding, at a group of four or within one, and tensors in reverse.
#[test]
fn element_offsets_and_negative_strides() {
    use Placement::{Offset, Reversed};
    let mut cases = vec![];
    for element in [F32, F16, Bf16] {
        let shape = AttentionShape::new(2, 4, 70, 16).kv_heads(2).kv_len(90).value_dim(8);
        for placement in [Offset(8), Offset(3), Reversed(0), Reversed(4), Reversed(3)] {
            let attention = placement.apply(shape.storage(Storage::all(element)));
            cases.extend(KINDS.map(|kind| Case::new(&attention).pattern(Causal).kind(kind)));
        }
    }
    check_all("offsets and reversed: bound", cases.clone(), bound);
    check_all("offsets and reversed: count", cases.clone(), count);
    check_all("offsets and reversed: gather", cases.clone(), gather);
    let merged = |case: &Case| -> Checked {
        let case = Case { options: case.options.splits(2), ..case.clone() };
        bound_of_parts(&gpu_with(case.options), &case, &cut(&case, Cut::Keys, 1))
    };
    check_all("offsets and reversed: parts", cases, merged);
}

/// One tensor of a kind lies otherwise than the rest, so that none takes another's offset or strides.
#[test]
fn each_tensor_at_an_offset_of_its_own() {
    let base = AttentionShape::new(2, 2, 67, 16).kv_len(80).value_dim(8);
    let [plain, offset, reversed] =
        [Placement::Bhld, Placement::Offset(20), Placement::Reversed(4)].map(|how| how.layouts(&base));
    let mut cases = vec![];
    for other in [offset, reversed] {
        for layouts in [plain.q(other.q), plain.k(other.k), plain.v(other.v), plain.out(other.out)] {
            cases.push(Case::new(base.layouts(layouts)).kind(Kind::Arange));
        }
    }
    check_all("each_tensor_at_an_offset_of_its_own: bound", cases.clone(), bound);
    check_all("each_tensor_at_an_offset_of_its_own: gather", cases, gather);
}

#[test]
fn blocks_of_the_mask_do_not_matter() {
    let mut cases = vec![];
    for (block_q, block_k) in
        [(16, 16), (32, 32), (128, 128), (256, 256), (16, 256), (256, 16), (64, 16), (32, 128), (128, 32)]
    {
        for (q_len, kv_len) in [(67, 67), (200, 300), (300, 150), (1, 257)] {
            let shape = AttentionShape::new(1, 2, q_len, 16).kv_len(kv_len);
            for pattern in ["causal", "window", "predicate", "document"] {
                let pattern = picked(pattern, &shape.extent(), (block_q + block_k) as u64);
                cases.push(Case::new(shape).pattern(pattern).blocks(block_q, block_k));
            }
        }
    }
    check_all("blocks: bound", cases.clone(), bound);
    check_all("blocks: count", cases, count);
}

/// Each family of GPUs has tiles of its own: each is right here, too, whatever the adapter is.
#[test]
fn tiles_of_every_family() {
    let mut cases = vec![];
    for family in GpuFamily::ALL {
        let options = Options::default().tile_kind(TileKind::Staged).gpu_family(family);
        for (dim, len) in [(64, 131), (128, 70), (80, 67)] {
            let case = Case::new(AttentionShape::new(1, 2, len, dim)).options(options);
            for kind in KINDS {
                cases.push(case.clone().kind(kind).pattern(Causal));
            }
            let holes = picked("blocks", &AttentionShape::new(1, 2, len, dim).extent(), len as u64);
            cases.push(case.pattern(holes));
        }
    }
    check_all("tiles_of_every_family: bound", cases.clone(), bound);
    check_all("tiles_of_every_family: count", cases.clone(), count);
    check_all("tiles_of_every_family: gather", cases, gather);
}

#[test]
fn a_forced_family_is_told() {
    let shape = AttentionShape::new(1, 1, 256, 64);
    let plan = |options: Options| gpu_with(options).kernels().attention(shape, &Full).expect("a plan");
    let staged = Options::default().tile_kind(TileKind::Staged);
    let said = |options| {
        let plan = plan(options);
        (plan.explain().tile.to_string(), plan.explain().tile_why.clone())
    };
    let (tile, why) = said(staged.gpu_family(GpuFamily::Nvidia));
    assert_eq!(tile, "64x64 chunk 8 v 16 far tall");
    assert!(why.contains("NVIDIA, which the caller forced") && why.contains("255 registers"), "{why}");
    // A software adapter is of no family, whoever made the processor.
    let (tile, why) = said(staged);
    assert!(tile == "64x32 chunk 8 v 16" && why.starts_with("for any GPU: "), "{tile} {why}");
}

#[test]
fn tiles_do_not_matter() {
    let base = StagedTile {
        lanes_r: 4,
        lanes_c: 8,
        narrow: false,
        wide: false,
        far: false,
        tall: false,
        chunk: 4,
        v_keys: 8,
        q_resident: false,
        by_subgroup: false,
    };
    let tiles = [
        base,
        StagedTile { q_resident: true, ..base },
        StagedTile { lanes_r: 16, chunk: 8, v_keys: 16, ..base },
        StagedTile { lanes_r: 8, chunk: 2, ..base },
        StagedTile { lanes_r: 1, chunk: 8, v_keys: 16, q_resident: true, ..base },
        StagedTile { lanes_r: 8, lanes_c: 16, chunk: 1, v_keys: 1, ..base },
        StagedTile { far: true, ..base },
        StagedTile { lanes_r: 8, lanes_c: 4, wide: true, far: true, chunk: 8, q_resident: true, ..base },
        StagedTile { lanes_r: 2, lanes_c: 4, wide: true, v_keys: 16, ..base },
        StagedTile { lanes_r: 2, far: true, tall: true, ..base },
        StagedTile { lanes_r: 4, lanes_c: 16, tall: true, chunk: 8, v_keys: 8, ..base },
        StagedTile { lanes_r: 1, tall: true, q_resident: true, ..base },
        StagedTile { lanes_c: 32, chunk: 2, v_keys: 2, ..base },
        StagedTile { lanes_c: 16, narrow: true, ..base },
        StagedTile { lanes_c: 16, narrow: true, far: true, chunk: 2, v_keys: 2, by_subgroup: true, ..base },
        StagedTile { far: true, q_resident: true, by_subgroup: true, ..base },
        StagedTile { lanes_r: 2, lanes_c: 4, wide: true, by_subgroup: true, ..base },
    ];
    let staged = tiles.into_iter().filter(|tile| has_subgroups() || !tile.by_subgroup).map(Tile::Staged);
    let direct = [1, 2, 4, 8].map(|lanes| Tile::Direct(DirectTile { lanes }));
    let mut cases = vec![];
    for tile in staged.chain(direct) {
        assert!(tile.workgroup_bytes(64) <= 16384, "{tile:?} fits every device");
        for (len, block_k) in [(67, 64), (131, 64), (40, 16)] {
            let shape = AttentionShape::new(1, 2, len, 64);
            let case = Case::new(shape).options(Options::default().tile(tile)).blocks(64, block_k);
            for kind in Kind::ALL {
                cases.push(case.clone().kind(kind));
                cases.push(case.clone().kind(kind).pattern(picked("blocks", &shape.extent(), len as u64)));
            }
        }
    }
    check_all("tiles_do_not_matter: bound", cases.clone(), bound);
    check_all("tiles_do_not_matter: count", cases, count);
}
