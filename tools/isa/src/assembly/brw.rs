//! brw: `LABEL7:` before a block, `mad(16) g36<1>F …` an instruction of 16 lanes; what a `send` is for stands on the next line.

use super::{Item, Kind, begins};

/// Reads a listing.
pub(super) fn read(listing: &str) -> Vec<Item> {
    let mut items = Vec::new();
    let mut lines = listing.lines().map(str::trim).peekable();
    while let Some(line) = lines.next() {
        if let Some(label) = line.strip_suffix(':').filter(|name| name.starts_with("LABEL")) {
            items.push(Item::Place(label.into()));
            continue;
        }
        let Some((name, lanes, operands)) = parts(line) else { continue };
        if begins(name, &["if", "else", "endif", "while", "break", "cont", "halt", "jmpi", "goto", "join"]) {
            // Where no lane goes on here, all are at the first label that is named.
            let leads = ["while", "if", "else"].contains(&name);
            let target = operands.split_whitespace().nth(1).filter(|_| leads);
            items.push(Item::branch(target));
        } else if name.starts_with("send") {
            let message = lines.next_if(|next| next.contains("MsgDesc"));
            items.push(Item::one(message.map_or(Kind::Memory, kind_of_message)));
        } else {
            items.push(Item::one(arithmetic(name, lanes, operands)));
        }
    }
    items
}

/// `(+f0.0) name.modifiers(lanes) operands`.
fn parts(line: &str) -> Option<(&str, u32, &str)> {
    let line = if line.starts_with('(') { line.split_once(") ")?.1 } else { line };
    let (name, rest) = line.split_once('(')?;
    let (lanes, operands) = rest.split_once(')')?;
    let is_name = name.chars().all(|c| c.is_ascii_alphanumeric() || ". _".contains(c));
    Some((name.trim(), lanes.parse().ok().filter(|_| is_name && !name.is_empty())?, operands))
}

/// Arithmetic: on one or a few lanes it is for all of them.
fn arithmetic(name: &str, lanes: u32, operands: &str) -> Kind {
    let destination = operands.split_whitespace().next().unwrap_or_default();
    let is_float = destination.ends_with('F');
    match name.split('.').next().unwrap_or_default() {
        "dpas" | "dpasw" => Kind::Matrix,
        "sync nop" | "sync" | "nop" => Kind::Scalar,
        _ if lanes < 8 => Kind::Scalar,
        "mad" | "madm" if is_float => Kind::Fma,
        _ => Kind::Vector,
    }
}

/// What a message is for.
fn kind_of_message(line: &str) -> Kind {
    if line.starts_with("gateway") {
        return Kind::Barrier;
    }
    let is_load = line.contains("( load");
    if line.starts_with("slm") {
        let part = |prefix: char| {
            let numbers = line
                .split([',', ' '])
                .filter_map(|word| word.strip_prefix(prefix)?.split('u').next()?.parse().ok());
            numbers.map(|number: u32| number).next()
        };
        // Transposed, a vector is for all of a thread's lanes, 8 at least.
        let vector = part('V').unwrap_or(1);
        let words = if line.contains("transpose") { vector.div_ceil(8) } else { vector };
        let bytes = part('d').unwrap_or(32) / 8 * words;
        return if is_load { Kind::Load(bytes) } else { Kind::Store(bytes) };
    }
    // The surface that holds what the registers did not.
    if line.contains(", ss )") { Kind::Scratch } else { Kind::Memory }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_known() {
        let kinds = [
            (
                "mad(8)          g57<1>F         g57<8,8,1>F     g2<8,8,1>F      g3<1,1,1>F { align1 1Q };",
                Kind::Fma,
            ),
            (
                "mad(8)          g36<1>UD        0x0040UW        g36<8,8,1>UW    0x0004UW { align1 1Q };",
                Kind::Vector,
            ),
            ("(+f0.0) sel.l(16) g9<1>UD       g9<8,8,1>UD     0x00000040UD    { align1 1H };", Kind::Vector),
            ("mov(1)          g83<1>UD        0x00000080UD    { align1 WE_all 1N };", Kind::Scalar),
            ("sync nop(1)     null<0,1,0>UB                   { align1 WE_all 1N I@6 };", Kind::Scalar),
            ("dpas.8x8(8)     g10<1>F  g10<1,1,0>F  g20<1,1,0>HF g30<1,1,0>HF { align1 1Q };", Kind::Matrix),
        ];
        for (text, kind) in kinds {
            assert_eq!(read(text), [Item::one(kind)], "{text}");
        }
        let messages = [
            (
                "slm MsgDesc: ( load, a32, d32, V4, L1STATE_L3MOCS dst_len = 4, src0_len = 1 flat )",
                Kind::Load(16),
            ),
            ("slm MsgDesc: ( store, a32, d32, V1, L1STATE_L3MOCS dst_len = 0 )", Kind::Store(4)),
            ("slm MsgDesc: ( load, a32, d16u32, V1, L1STATE_L3MOCS dst_len = 1 flat )", Kind::Load(2)),
            (
                "slm MsgDesc: ( load, a32, d32, V8, transpose, L1STATE_L3MOCS dst_len = 1 flat )",
                Kind::Load(4),
            ),
            (
                "slm MsgDesc: ( load, a32, d32, V16, transpose, L1STATE_L3MOCS dst_len = 2, src0_len = 1 flat )",
                Kind::Load(8),
            ),
            ("ugm MsgDesc: ( load, a32, d32, V4, L1STATE_L3MOCS dst_len = 4, bti )  BTI 0", Kind::Memory),
            (
                "ugm MsgDesc: ( store, a32, d32, V1, L1STATE_L3MOCS dst_len = 0, src0_len = 1, ss )",
                Kind::Scratch,
            ),
            ("gateway MsgDesc: (barrier msg)", Kind::Barrier),
        ];
        for (text, kind) in messages {
            assert_eq!(
                read(&format!("send(8) g1UD g2UD nullUD 0x02403500 0x00000000\n   {text}")),
                [Item::one(kind)]
            );
        }
    }

    #[test]
    fn a_while_leads_back_and_a_break_nowhere() {
        let listing = "LABEL3:\n(+f0.0) break(8) JIP:  LABEL6   UIP:  LABEL6  { align1 1Q };\nwhile(8)  JIP:  LABEL3   { align1 1Q };\n";
        assert_eq!(
            read(listing),
            [Item::Place("LABEL3".into()), Item::branch(None), Item::branch(Some("LABEL3"))]
        );
    }

    #[test]
    fn an_if_leads_past_what_no_lane_does() {
        let listing = "(+f0.0) if(8)   JIP:  LABEL1  UIP:  LABEL0  { align1 1Q };\nelse(8)  JIP:  LABEL0  UIP:  LABEL0  { align1 1Q };\nendif(8)  JIP:  LABEL9  { align1 1Q };\n";
        assert_eq!(
            read(listing),
            [Item::branch(Some("LABEL1")), Item::branch(Some("LABEL0")), Item::branch(None)]
        );
    }
}
