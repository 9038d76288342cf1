//! ir3: `l7:` before a block, `(sy)(rpt2)mad.f32 r1.x, r2.x, …` an instruction that runs three times, `ldl.u32 r4.x, l[r1.x], 4` a
//! load of four words.

use super::{Item, Kind, begins};

/// Reads a listing.
pub(super) fn read(listing: &str) -> Vec<Item> {
    let mut items = Vec::new();
    for line in listing.lines().map(str::trim) {
        if let Some(label) = line.strip_suffix(':').filter(|name| is_label(name)) {
            items.push(Item::Place(label.into()));
        } else if line.starts_with(|c: char| c == '(' || c.is_ascii_lowercase()) {
            items.extend(instruction(line));
        }
    }
    items
}

/// Whether this names a block.
fn is_label(name: &str) -> bool {
    name.strip_prefix('l').is_some_and(|number| number.parse::<u32>().is_ok())
}

/// An instruction.
fn instruction(line: &str) -> Option<Item> {
    let (mut rest, mut times) = (line, 1);
    // What stands before: waits, repetitions, delays.
    while let Some((flag, after)) = rest.strip_prefix('(').and_then(|rest| rest.split_once(')')) {
        if let Some(more) = flag.strip_prefix("rpt").and_then(|more| more.parse::<u32>().ok()) {
            times = 1 + more;
        }
        rest = after.trim_start();
    }
    let name = rest.split_whitespace().next()?;
    let target = rest.rsplit('#').next().filter(|target| is_label(target));
    match name {
        "jump" => return Some(Item::Jump(target.map(String::from))),
        "end" => return Some(Item::Jump(None)),
        _ if name.starts_with("br") => return Some(Item::branch(target)),
        _ => {}
    }
    let words: u32 = rest.rsplit([',', ' ']).next().and_then(|words| words.parse().ok()).unwrap_or(1);
    let kind = match name {
        _ if begins(name, &["mad.f"]) => Kind::Fma,
        _ if name.starts_with("ldl") => Kind::Load(words * size(name)),
        _ if name.starts_with("stl") || (name.starts_with("atomic") && name.ends_with(".l")) => {
            Kind::Store(words * size(name))
        }
        _ if begins(name, &["ldp", "stp"]) => Kind::Scratch,
        _ if begins(name, &["ldib", "isam", "ldg", "stg", "stib", "resinfo", "atomic", "ldib", "sam"]) => {
            Kind::Memory
        }
        _ if name.starts_with("bar") => Kind::Barrier,
        _ if begins(name, &["pred"]) => Kind::Branch,
        _ if begins(name, &["nop", "fence", "ldc", "stc", "shps", "shpe", "getone", "sleep"]) => Kind::Scalar,
        _ => Kind::Vector,
    };
    Some(Item::Instruction { kind, times, to: None })
}

/// Bytes of one word of an access, from its type.
fn size(name: &str) -> u32 {
    if name.contains("16") {
        2
    } else if name.contains("u8") || name.contains("s8") {
        1
    } else {
        4
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_known() {
        let kinds = [
            ("mad.f32 r41.z, (last)r41.z, r38.z, (last)r41.y", Kind::Fma, 1),
            ("(sy)(rpt2)mad.f16 hr1.x, (r)hr2.x, hr3.x, (r)hr1.x", Kind::Fma, 3),
            ("(nop2) sub.u r48.y, r48.y, r53.x", Kind::Vector, 1),
            ("madsh.m16 r1.x, r2.x, r3.x, r4.x", Kind::Vector, 1),
            ("(ss)ldl.u32 r15.x, l[r14.w+16], 4", Kind::Load(16), 1),
            ("stl.u16 l[r0.w], hr0.w, 1", Kind::Store(2), 1),
            ("atomic.or.untyped.1d.u32.1.l r1.x, l[r2.x], r3.x", Kind::Store(4), 1),
            ("isam.v.base0 (u32)(x)r3.x, r2.z, s#0, t#0", Kind::Memory, 1),
            ("stp.u32 p[r0.x], r1.x, 1", Kind::Scratch, 1),
            ("(sy)bar.g", Kind::Barrier, 1),
            ("(rpt6)nop", Kind::Scalar, 7),
        ];
        for (text, kind, times) in kinds {
            assert_eq!(instruction(text), Some(Item::Instruction { kind, times, to: None }), "{text}");
        }
    }

    #[test]
    fn labels_and_branches_are_read() {
        let listing = "; remark\n@in(r48.x)\tin0\nl461:\n(ss)br !p0.y, #l2830\njump #l461\n";
        let expected =
            [Item::Place("l461".into()), Item::branch(Some("l2830")), Item::Jump(Some("l461".into()))];
        assert_eq!(read(listing), expected);
    }
}
