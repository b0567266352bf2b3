//! Entities as people read them: features by window with a sparkline each, rankings, what was forgotten.

use telltale_proto::{json, v1};

use super::entities::line;
use crate::convert;
use crate::verdict::grouped;

/// Heights of a sparkline.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// One entity: who it is, then a line for each feature that says something.
pub fn table(answer: &v1::GetEntityResponse, all: bool) -> String {
    let mut lines = vec![who(answer.entity.as_ref())];
    let time = |time: &Option<pbjson_types::Timestamp>| time.as_ref().and_then(|time| json::write(time).ok());
    if let Some(until) = time(&answer.forgotten) {
        lines.push(format!("forgotten on request up to {}", until.trim_matches('"')));
    }
    let Some(seen) = time(&answer.last_seen) else {
        lines.push("nothing is held of it".to_owned());
        lines.extend(answer.decisions.iter().map(line));
        return lines.join("\n");
    };
    lines.push(format!(
        "last seen {}, identity {}, {} bytes",
        seen.trim_matches('"'),
        if answer.proved { "proved" } else { "claimed" },
        grouped(answer.bytes)
    ));
    lines.push(format!("threat level {:.0} of 100, attacked {:.0} of 100", answer.level, answer.targeted));
    lines.extend(answer.decisions.iter().map(line));
    let told: Vec<&v1::EntityFeature> =
        answer.features.iter().filter(|feature| all || feature.value.is_some_and(|value| value != 0.0)).collect();
    let longest = told.iter().map(|feature| feature.name.len()).max().unwrap_or(0);
    lines.extend(told.iter().map(|feature| {
        let value = feature.value.map_or_else(|| "–".to_owned(), number);
        format!("{:<longest$} {value:>12}  {:<12}  {}", feature.name, sparkline(&feature.tiles), feature.meaning)
    }));
    if told.len() < answer.features.len() {
        lines.push(format!("{} more without evidence (--all shows them)", answer.features.len() - told.len()));
    }
    lines.join("\n")
}

/// A ranking, one entity a line.
pub fn ranking(answer: &v1::TopEntitiesResponse) -> String {
    let mut lines: Vec<String> =
        answer.entities.iter().map(|ranked| format!("{:>14}  {}", number(ranked.value), who(ranked.entity.as_ref()))).collect();
    let scope = if answer.partial { ", those that this scorer has at hand" } else { "" };
    lines.push(format!("of {} entities{scope}", grouped(answer.looked_at)));
    lines.join("\n")
}

/// What was erased.
pub fn forgotten(answer: &v1::ForgetEntityResponse) -> String {
    let until = answer.until.as_ref().and_then(|time| json::write(time).ok()).unwrap_or_default();
    let name = if answer.name { ", its name" } else { "" };
    let shared = if answer.shared { "; other replicas were told" } else { "" };
    format!(
        "forgotten up to {}: its history{name}, {} decisions, {} journal records in {} files{shared}",
        until.trim_matches('"'),
        answer.decisions,
        grouped(answer.records),
        answer.files
    )
}

fn who(entity: Option<&v1::Entity>) -> String {
    entity.map_or_else(String::new, |entity| {
        let key = convert::hex(&entity.key);
        if entity.id.is_empty() { format!("{} {key}", entity.r#type) } else { format!("{} {} ({key})", entity.r#type, entity.id) }
    })
}

fn number(value: f64) -> String {
    if value.fract() == 0.0 && value.abs() < 1e15 {
        let sign = if value < 0.0 { "-" } else { "" };
        format!("{sign}{}", grouped(value.abs() as u64))
    } else if value.abs() >= 100.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.4}")
    }
}

/// One character a part, as high as its share of the greatest one; blank where there is nothing.
fn sparkline(parts: &[f64]) -> String {
    let greatest = parts.iter().copied().fold(0.0, f64::max);
    if greatest <= 0.0 {
        return String::new();
    }
    let height = |part: f64| (part / greatest * BARS.len() as f64).ceil() as usize;
    parts.iter().map(|part| if *part <= 0.0 { ' ' } else { BARS.get(height(*part).max(1) - 1).copied().unwrap_or('█') }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sparkline_is_as_high_as_what_it_shows() {
        assert_eq!(sparkline(&[0.0, 1.0, 4.0, 8.0]), " ▁▄█");
        assert_eq!(sparkline(&[0.0; 12]), "");
        assert_eq!(sparkline(&[0.001, 1000.0]), "▁█");
        assert_eq!(sparkline(&[]), "");
    }

    #[test]
    fn an_entity_that_nobody_knows_says_so() {
        let entity = Some(v1::Entity { r#type: "user".into(), key: vec![0xab; 16].into(), ..Default::default() });
        let text = table(&v1::GetEntityResponse { entity, ..Default::default() }, false);
        assert_eq!(text, format!("user {}\nnothing is held of it", "ab".repeat(16)));
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!(
            [number(0.0), number(1_234_567.0), number(-3.0), number(0.12345), number(1234.56)],
            ["0", "1,234,567", "-3", "0.1235", "1234.6"]
        );
    }
}
