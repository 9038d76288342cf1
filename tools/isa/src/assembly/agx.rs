//! AGX: `4c0: c520003d0080f001   mov   r1, r2`, the address first; a jump tells how far. The listing stands between others of
//! the compiler's texts, and the part that runs once before all lanes is a listing of its own.

use super::{Item, Kind, begins};

/// Reads the longest listing in a text.
pub(super) fn read(text: &str) -> Vec<Item> {
    let mut listings: Vec<Vec<(i64, &str)>> = Vec::new();
    for (address, instruction) in text.lines().filter_map(line) {
        if address == 0 || listings.is_empty() {
            listings.push(Vec::new());
        }
        listings.last_mut().expect("one was pushed").push((address, instruction));
    }
    let longest = listings.into_iter().max_by_key(Vec::len).unwrap_or_default();
    let mut items = Vec::new();
    for &(address, instruction) in &longest {
        items.push(Item::Place(address.to_string()));
        items.push(item(address, instruction));
    }
    // Only the places that something leads to.
    let targets: Vec<String> = items.iter().filter_map(target).collect();
    items.retain(|item| !matches!(item, Item::Place(name) if !targets.contains(name)));
    items
}

/// The place that an item leads to.
fn target(item: &Item) -> Option<String> {
    match item {
        Item::Instruction { to, .. } | Item::Jump(to) => to.clone(),
        Item::Place(_) => None,
    }
}

/// The address and the instruction of a line.
fn line(text: &str) -> Option<(i64, &str)> {
    let (address, rest) = text.trim_start().split_once(": ")?;
    let (code, instruction) = rest.trim_start().split_once(' ')?;
    let is_code = code.len() >= 4 && code.chars().all(|c| c.is_ascii_hexdigit());
    Some((i64::from_str_radix(address, 16).ok()?, instruction.trim())).filter(|_| is_code)
}

/// An instruction.
fn item(address: i64, text: &str) -> Item {
    let name = text.split_whitespace().next().unwrap_or_default();
    if name.starts_with("jmp") {
        let distance = text.split_whitespace().nth(1).and_then(|words| words.parse::<i64>().ok());
        let to = distance.map(|distance| (address + distance).to_string());
        return Item::branch(to.as_deref());
    }
    if name == "stop" {
        return Item::Jump(None);
    }
    Item::one(match name {
        _ if begins(name, &["ffma", "hfma"]) => Kind::Fma,
        _ if begins(name, &["simd_matrix", "simd_mat", "matmul"]) => Kind::Matrix,
        _ if name.starts_with("lload") => Kind::Load(bytes(text)),
        _ if begins(name, &["lstore", "latomic"]) => Kind::Store(bytes(text)),
        _ if begins(name, &["stack_load", "stack_store"]) => Kind::Scratch,
        _ if begins(name, &["load", "store", "atomic"]) => Kind::Memory,
        "barrier" => Kind::Barrier,
        _ if begins(name, &["if", "else", "while", "pop_exec"]) => Kind::Branch,
        _ if begins(name, &["wait", "stack_adjust", "trap", "nop"]) => Kind::Scalar,
        _ => Kind::Vector,
    })
}

/// The bytes of an access to workgroup memory: `i32, xyzw`.
fn bytes(text: &str) -> u32 {
    let words = || text.split(", ").map(str::trim);
    let size = words().find_map(|word| word.strip_prefix('i')?.parse::<u32>().ok()).unwrap_or(32) / 8;
    let is_mask = |word: &&str| !word.is_empty() && word.chars().all(|c| "xyzw".contains(c));
    size * words().find(is_mask).map_or(1, |mask| mask.len() as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_known() {
        let kinds = [
            ("ffma     r1, r2, r3, r4", Kind::Fma),
            ("csel     r1, r2, r3, r4, r5", Kind::Vector),
            ("lload    r116_r117_r118_r119, r5l, 0, i32, xyzw", Kind::Load(16)),
            ("lstore   r10l, r3l, 0, i16, xy", Kind::Store(4)),
            ("load     r0_r1_r2_r3, du2, 4, lsl 2, i32, xyzw, a", Kind::Memory),
            ("stack_load r27, 4, i32, x, a", Kind::Scratch),
            ("barrier", Kind::Barrier),
            ("wait     0", Kind::Scalar),
            ("pop_exec 1", Kind::Branch),
        ];
        for (text, kind) in kinds {
            assert_eq!(item(0, text), Item::one(kind), "{text}");
        }
    }

    #[test]
    fn the_longest_listing_is_read_with_its_jumps() {
        let text = "shader: MESA_SHADER_COMPUTE\n    32  %9 = @load_preamble (base=24)\n\
               0: f2110000               mov      $r4, r0\n   4: 8800                   stop\n\
               0: f2110000               mov      $r4, r0\n   4: 8e11c8c658000000       ffma     r4, r4, r6, r1\n\
               c: 00c0f8ffffff           jmp_any  -8\n  12: 8800                   stop\n";
        let expected = [
            Item::one(Kind::Vector),
            Item::Place("4".into()),
            Item::one(Kind::Fma),
            Item::branch(Some("4")),
            Item::Jump(None),
        ];
        assert_eq!(read(text), expected);
    }
}
