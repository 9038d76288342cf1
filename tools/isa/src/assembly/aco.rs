//! ACO: `BB7:` before a block, a tab before each instruction, two instructions in one where `::` stands between.

use super::{Item, Kind, begins};

/// Reads a listing.
pub(super) fn read(listing: &str) -> Vec<Item> {
    let mut items = Vec::new();
    for line in listing.lines() {
        let text = line.split(';').next().unwrap_or_default();
        let trimmed = text.trim();
        if let Some(block) = trimmed.strip_suffix(':').filter(|name| name.starts_with("BB")) {
            items.push(Item::Place(block.into()));
        } else if text.starts_with('\t') && !trimmed.starts_with('(') {
            // Instructions, but for remarks like "(then repeated 6 times)".
            items.extend(trimmed.split(" :: ").filter_map(instruction));
        }
    }
    items
}

/// An instruction; none for hints to the scheduler of RDNA3 and for what fills the instruction cache.
fn instruction(text: &str) -> Option<Item> {
    let mut words = text.split_whitespace();
    let name = words.next()?;
    if ["s_delay_alu", "s_clause", "s_nop", "s_code_end"].contains(&name) {
        return None;
    }
    match name {
        "s_branch" => return Some(Item::Jump(words.next().map(String::from))),
        "s_endpgm" => return Some(Item::Jump(None)),
        _ if name.starts_with("s_cbranch") => return Some(Item::branch(words.next())),
        _ => {}
    }
    let operation = name.strip_prefix("v_dual_").or(name.strip_prefix("v_pk_")).or(name.strip_prefix("v_"));
    Some(Item::one(match operation {
        Some(one) if begins(one, &["wmma", "swmmac", "mfma"]) => Kind::Matrix,
        Some(one) if begins(one, &["fma", "fmac", "fmamk", "fmaak", "mad_f", "mac_f", "madmk", "madak"]) => {
            Kind::Fma
        }
        Some(_) => Kind::Vector,
        None if name.starts_with("ds_") => workgroup(name),
        None if name.starts_with("scratch_") => Kind::Scratch,
        None if begins(name, &["buffer_", "global_", "flat_"]) => Kind::Memory,
        None if name.starts_with("s_barrier") => Kind::Barrier,
        None => Kind::Scalar,
    }))
}

/// An access to workgroup memory.
fn workgroup(name: &str) -> Kind {
    let bits = name.rsplit(['b', 'u', 'i']).next().and_then(|bits| bits.parse::<u32>().ok()).unwrap_or(32);
    let pairs =
        if name.contains("2addr") || name.contains("read2") || name.contains("write2") { 2 } else { 1 };
    let bytes = pairs * bits / 8;
    if begins(name, &["ds_load", "ds_read"]) { Kind::Load(bytes) } else { Kind::Store(bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_known() {
        let kinds = [
            ("v_dual_fmac_f32 v1, v2, v3", Kind::Fma),
            ("v_mad_u32_u24 v1, v2, v3, v4", Kind::Vector),
            ("v_wmma_f32_16x16x16_f16 v[0:7], v[8:15], v[16:23], v[0:7]", Kind::Matrix),
            ("ds_load_b128 v[24:27], v22", Kind::Load(16)),
            ("ds_load_2addr_b32 v[2:3], v22 offset1:1", Kind::Load(8)),
            ("ds_read2_b64 v[2:5], v22 offset1:1", Kind::Load(16)),
            ("ds_load_u16 v1, v2", Kind::Load(2)),
            ("ds_store_b64 v2, v[4:5]", Kind::Store(8)),
            ("ds_or_b32 v2, v4", Kind::Store(4)),
            ("buffer_load_b32 v1, v2, s[0:3], 0", Kind::Memory),
            ("scratch_load_b32 v1, off, s0", Kind::Scratch),
            ("s_barrier", Kind::Barrier),
            ("s_waitcnt lgkmcnt(0)", Kind::Scalar),
        ];
        for (text, kind) in kinds {
            assert_eq!(instruction(text), Some(Item::one(kind)), "{text}");
        }
        assert_eq!(instruction("s_branch BB4"), Some(Item::Jump(Some("BB4".into()))));
        assert_eq!(instruction("s_delay_alu instid0(VALU_DEP_1)"), None);
    }

    #[test]
    fn blocks_branches_and_pairs_are_read() {
        let listing = "BB2:\n\tv_dual_fmac_f32 v1, v2, v3 :: v_dual_mov_b32 v4, v5 ; 1\n\ts_cbranch_scc0 BB2 ; bf\n\
            \t(then repeated 6 times)\n";
        let pair = [Kind::Fma, Kind::Vector].map(Item::one);
        assert_eq!(
            read(listing),
            [&[Item::Place("BB2".into())][..], &pair, &[Item::branch(Some("BB2"))]].concat()
        );
    }
}
