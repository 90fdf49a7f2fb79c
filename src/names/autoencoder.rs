//! The names of an autoencoder's weights.

/// What diffusers called the projections of attention before its version 0.15.
const OLDER: [(&str, &str); 4] =
    [(".to_q.", ".query."), (".to_k.", ".key."), (".to_v.", ".value."), (".to_out.0.", ".proj_attn.")];
/// Parts of names in diffusers and in the original.
const PARTS: [(&str, &str); 9] = [
    (".conv_norm_out.", ".norm_out."),
    (".conv_shortcut.", ".nin_shortcut."),
    (".downsamplers.0.", ".downsample."),
    (".upsamplers.0.", ".upsample."),
    (".group_norm.", ".norm."),
    (".to_q.", ".q."),
    (".to_k.", ".k."),
    (".to_v.", ".v."),
    (".to_out.0.", ".proj_out."),
];

/// The name that an older diffusers gave a weight.
pub fn older(name: &str) -> impl Iterator<Item = String> {
    OLDER.iter().filter(|(today, _)| name.contains(today)).map(|(today, then)| name.replace(today, then))
}

/// The name in the original of an autoencoder with so many levels.
pub fn original(name: &str, levels: usize) -> String {
    let mut name = name.to_owned();
    for (diffusers, original) in PARTS {
        name = name.replace(diffusers, original);
    }
    let parts: Vec<&str> = name.split('.').collect();
    match parts[..] {
        [network, "mid_block", "resnets", at, ref rest @ ..] => {
            let at = if at == "0" { 1 } else { 2 };
            format!("{network}.mid.block_{at}.{}", rest.join("."))
        }
        [network, "mid_block", "attentions", _, ref rest @ ..] => {
            format!("{network}.mid.attn_1.{}", rest.join("."))
        }
        [network, "down_blocks", level, "resnets", ref rest @ ..] => {
            format!("{network}.down.{level}.block.{}", rest.join("."))
        }
        [network, "down_blocks", level, ref rest @ ..] => {
            format!("{network}.down.{level}.{}", rest.join("."))
        }
        [network, "up_blocks", level, ref rest @ ..] => {
            let level = level.parse().map_or(0, |level: usize| levels.saturating_sub(level + 1));
            let rest = rest.join(".");
            let rest = rest.strip_prefix("resnets.").map_or(rest.clone(), |rest| format!("block.{rest}"));
            format!("{network}.up.{level}.{rest}")
        }
        _ => name,
    }
}
