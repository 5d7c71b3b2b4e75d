//! What a host in state-sync mode sends each client, by component and field: a table for people,
//! figures for others.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use phalanx::netcode::id::MemberId;
use phalanx::netcode::node::Inspection;
use phalanx::netcode::state::Schema;
use serde_json::{Value, json};

/// Members of whom an account is kept at most; of those who left, only so many.
const ACCOUNTS_MAX: usize = 128;
/// Clients with a column of their own in the table.
const COLUMNS_MAX: usize = 6;

/// The accounts of all clients of a host.
#[derive(Clone, Debug)]
pub struct Accounts {
    schema: Arc<Schema>,
    ticks_per_second: f64,
    newest: BTreeMap<MemberId, Inspection>,
    /// As they stood at the last table.
    shown: BTreeMap<MemberId, Inspection>,
}

impl Accounts {
    /// No account yet, in a game of this schema.
    #[must_use]
    pub fn new(schema: &Arc<Schema>, ticks_per_second: f64) -> Self {
        Self {
            schema: Arc::clone(schema),
            ticks_per_second,
            newest: BTreeMap::new(),
            shown: BTreeMap::new(),
        }
    }

    /// Takes in how an account stands.
    pub fn take(&mut self, inspection: Inspection) {
        self.newest.insert(inspection.member, inspection);
        if self.newest.len() > ACCOUNTS_MAX
            && let Some((oldest, _)) = self.newest.iter().min_by_key(|(_, it)| it.until)
        {
            let oldest = *oldest;
            self.newest.remove(&oldest);
            self.shown.remove(&oldest);
        }
    }

    /// Bits per second of each client since the last table, by what they say.
    ///
    /// Empty if nothing was sent since then. `names` are those of the players by slot.
    #[must_use]
    pub fn table(&mut self, names: &[String]) -> String {
        let lately: Vec<Inspection> = self
            .newest
            .values()
            .map(|newest| match self.shown.get(&newest.member) {
                Some(before) => newest.since(before),
                None => newest.clone(),
            })
            .filter(|lately| lately.sent.total() > 0 && lately.until > lately.from)
            .collect();
        self.shown.clone_from(&self.newest);
        let per_second = |lately: &Inspection| {
            self.ticks_per_second / f64::from(lately.until.since(lately.from))
        };
        // By row: all clients, then each.
        let mut rows: BTreeMap<String, Vec<f64>> = BTreeMap::new();
        let columns = lately.len().min(COLUMNS_MAX);
        for (index, lately) in lately.iter().enumerate() {
            for row in lately.rows(&self.schema) {
                let bits = row.bits * per_second(lately);
                let cells = rows
                    .entry(row.name())
                    .or_insert_with(|| vec![0.0; columns + 1]);
                cells[0] += bits;
                if index < columns {
                    cells[index + 1] += bits;
                }
            }
        }
        let Some(until) = lately.iter().map(|lately| lately.until).max() else {
            return String::new();
        };
        let mut rows: Vec<(String, Vec<f64>)> = rows.into_iter().collect();
        rows.sort_by(|a, b| b.1[0].total_cmp(&a.1[0]).then_with(|| a.0.cmp(&b.0)));
        let sums = (0..=columns).map(|column| rows.iter().map(|row| row.1[column]).sum());
        rows.push(("all".to_owned(), sums.collect()));
        let heads: Vec<String> = lately[..columns]
            .iter()
            .map(|lately| head_of(lately, names))
            .collect();
        write_table(until.number(), &heads, &rows)
    }

    /// Bytes of state by client and field, and of everything else by client, as labels and values.
    #[must_use]
    pub fn figures(&self) -> Vec<(&'static str, String, f64)> {
        let mut figures = Vec::new();
        for inspection in self.newest.values() {
            let member = inspection.member.0;
            for row in inspection.breakdown(&self.schema).rows {
                let (kind, field) = (quoted(&row.kind), quoted(&row.field));
                let labels = format!("{{member=\"{member}\",kind={kind},field={field}}}");
                figures.push(("state_bits_total", labels, row.bits));
            }
        }
        for inspection in self.newest.values() {
            let labels = format!("{{member=\"{}\"}}", inspection.member);
            figures.push(("state_datagrams_total", labels, float(inspection.bodies)));
        }
        for inspection in self.newest.values() {
            let labels = format!("{{member=\"{}\"}}", inspection.member);
            figures.push(("entities_in_view", labels, f64::from(inspection.in_view)));
        }
        figures
    }

    /// All accounts for programs, one object per client.
    #[must_use]
    pub fn json(&self) -> Value {
        let of = |inspection: &Inspection| {
            let rows = inspection.rows(&self.schema);
            let bits: BTreeMap<String, f64> =
                rows.into_iter().map(|row| (row.name(), row.bits)).collect();
            json!({
                "member": inspection.member.0,
                "slot": inspection.slot.map(|slot| slot.0),
                "from_tick": inspection.from.number(),
                "until_tick": inspection.until.number(),
                "bytes": inspection.sent.total(),
                "state_datagrams": inspection.bodies,
                "bits": bits,
            })
        };
        self.newest.values().map(of).collect()
    }
}

fn head_of(lately: &Inspection, names: &[String]) -> String {
    let name = lately.slot.and_then(|slot| names.get(slot.index()));
    match name.filter(|name| !name.is_empty()) {
        Some(name) => name.escape_debug().to_string(),
        None => format!("member {}", lately.member),
    }
}

fn write_table(tick: u32, heads: &[String], rows: &[(String, Vec<f64>)]) -> String {
    let mut text = String::new();
    let title = format!("bit/s at tick {tick}");
    let names = rows.iter().map(|row| row.0.chars().count());
    let width = names.max().unwrap_or(0).max(title.chars().count());
    let _ = write!(text, "{title:<width$}  {:>10}  {:>7}", "all", "share");
    for head in heads {
        let head: String = head.chars().take(14).collect();
        let _ = write!(text, "  {head:>14}");
    }
    text.push('\n');
    let all = rows.last().map_or(0.0, |row| row.1[0]);
    for (name, cells) in rows {
        let share = if all > 0.0 {
            cells[0] / all * 100.0
        } else {
            0.0
        };
        let _ = write!(text, "{name:<width$}  {:>10.0}  {share:>6.1}%", cells[0]);
        for cell in &cells[1..] {
            let _ = write!(text, "  {cell:>14.0}");
        }
        text.push('\n');
    }
    text
}

/// A label's value, as Prometheus has it.
fn quoted(text: &str) -> String {
    let escaped = text
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n");
    format!("\"{escaped}\"")
}

#[expect(
    clippy::cast_precision_loss,
    reason = "metrics are floats; 2^53 is enough"
)]
const fn float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_a_column_per_client_and_sums() {
        let rows = [
            ("Position.x".to_owned(), vec![300.0, 100.0, 200.0]),
            ("all".to_owned(), vec![400.0, 150.0, 250.0]),
        ];
        let heads = ["ana".to_owned(), "a name that is far too long".to_owned()];
        let text = write_table(60, &heads, &rows);
        let lines: Vec<Vec<&str>> = text
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(lines[1], ["Position.x", "300", "75.0%", "100", "200"]);
        assert_eq!(lines[2], ["all", "400", "100.0%", "150", "250"]);
        let widths: Vec<usize> = text.lines().map(|line| line.chars().count()).collect();
        assert!(widths.windows(2).all(|pair| pair[0] == pair[1]), "{text}");
    }

    #[test]
    fn labels_cannot_break_out_of_their_quotes() {
        assert_eq!(quoted("a\"b\\c\n"), "\"a\\\"b\\\\c\\n\"");
    }
}
