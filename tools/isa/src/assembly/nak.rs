//! NAK: `block 4 L8 [2, 3] -> {` before a block, `r5 = imad r2 0x9 r5` an instruction, delays as remarks.

use super::{Item, Kind, begins};

/// Reads a listing.
pub(super) fn read(listing: &str) -> Vec<Item> {
    let mut items = Vec::new();
    for line in listing.lines() {
        let text = line.split("//").next().unwrap_or_default().trim();
        if text.starts_with("block") && text.ends_with('{') {
            items.extend(text.split_whitespace().nth(2).map(|name| Item::Place(name.into())));
        } else if !text.is_empty() && !text.starts_with('}') {
            items.extend(instruction(text));
        }
    }
    items
}

/// An instruction: `[@predicate] [results =] operation operands`.
fn instruction(text: &str) -> Option<Item> {
    let always = !text.starts_with('@');
    let text =
        text.strip_prefix('@').map_or(text, |rest| rest.split_once(' ').map_or("", |(_, rest)| rest)).trim();
    let (results, operation) = text.split_once(" = ").map_or(("", text), |(left, right)| (left, right));
    let mut words = operation.split_whitespace();
    let name = words.next()?;
    match name {
        "bra" => {
            let (condition, to) = (words.next(), words.next_back().map(String::from));
            // `pT` is true.
            let is_jump = always && condition == Some("pT");
            return Some(if is_jump { Item::Jump(to) } else { Item::branch(to.as_deref()) });
        }
        "exit" if always => return Some(Item::Jump(None)),
        _ => {}
    }
    // The uniform datapath.
    let is_uniform = results.starts_with('u');
    let is_scalar = begins(
        name,
        &[
            "nop", "bssy", "bsync", "bclear", "exit", "membar", "ldc", "r2ur", "s2r", "cs2r", "warpsync",
            "ccctl",
        ],
    );
    Some(Item::one(match name {
        _ if is_uniform || is_scalar => Kind::Scalar,
        _ if begins(name, &["ffma", "hfma2"]) => Kind::Fma,
        _ if begins(name, &["hmma", "imma"]) => Kind::Matrix,
        _ if name.starts_with("ldsm") => Kind::Load(if name.contains("x4") { 16 } else { 8 }),
        _ if name.starts_with("ld.shared") => Kind::Load(bytes(name)),
        _ if begins(name, &["st.shared", "atom.shared", "atoms"]) => Kind::Store(bytes(name)),
        _ if begins(name, &["ld.local", "st.local"]) => Kind::Scratch,
        _ if begins(name, &["ld.", "st.", "atom", "red"]) => Kind::Memory,
        _ if name.starts_with("bar.") => Kind::Barrier,
        _ => Kind::Vector,
    }))
}

/// The bytes of an access, from the type at the name's end: `.b128`, `.u16`.
fn bytes(name: &str) -> u32 {
    let digits = name.rsplit('.').find_map(|part| part.get(1..)?.parse::<u32>().ok());
    digits.unwrap_or(32) / 8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_known() {
        let kinds = [
            ("r73       = ffma.ftz r72 r53 r73", Kind::Fma),
            ("@!p0 r73  = ffma.ftz r72 r53 r73", Kind::Fma),
            ("r5        = imad r2 0x9 r5", Kind::Vector),
            ("ur5       = iadd3 ur2 0x9 rZ", Kind::Scalar),
            ("r0..4     = hmma.m16n8k16.f32 r4..8 r8..10 r0..4", Kind::Matrix),
            ("r54..58   = ld.shared.strong.cta.b128 [r6.x16+0x10], pT", Kind::Load(16)),
            ("r54       = ld.shared.strong.cta.b32 [r6+0x10], pT", Kind::Load(4)),
            ("r54       = ld.shared.strong.cta.u16 [r6+0x10], pT", Kind::Load(2)),
            ("r4..8     = ldsm.x4 [r3]", Kind::Load(16)),
            ("st.shared.strong.cta.b64 [r6+0x10] r4..6", Kind::Store(8)),
            ("st.global.a64.strong.gpu.b32 [r6..8] r4", Kind::Memory),
            ("r1        = ld.local.strong.cta.b32 [r6]", Kind::Scratch),
            ("bar.sync", Kind::Barrier),
            ("nop", Kind::Scalar),
        ];
        for (text, kind) in kinds {
            assert_eq!(instruction(text), Some(Item::one(kind)), "{text}");
        }
    }

    #[test]
    fn blocks_and_branches_are_read() {
        let listing = "block.u 4 L8 [2, 3] -> {\n    r1 = fadd r1 r2 // delay=1\n  @!p0    bra pT L8  // delay=1\n} -> [4]\n";
        assert_eq!(
            read(listing),
            [Item::Place("L8".into()), Item::one(Kind::Vector), Item::branch(Some("L8"))]
        );
        assert_eq!(instruction("bra pT L8"), Some(Item::Jump(Some("L8".into()))));
        assert_eq!(instruction("bra !up0 L8"), Some(Item::branch(Some("L8"))));
        assert_eq!(instruction("exit"), Some(Item::Jump(None)));
    }
}
