//! How good a score is on held-out rows: scores with labels enter, figures leave.

/// Figures of one model.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Figures {
    /// Area under precision over recall, as average precision.
    pub pr_auc: f64,
    /// Area under the receiver operating characteristic.
    pub roc_auc: f64,
    /// Recall at the lowest threshold that wrongly flags at most one in a thousand.
    pub recall_at_fpr_0_001: f64,
}

/// The figures of `(score, abusive)` rows; `None` when one of the classes is empty.
pub fn figures(rows: &[(f64, bool)]) -> Option<Figures> {
    let positives = rows.iter().filter(|(_, positive)| *positive).count() as f64;
    let negatives = rows.len() as f64 - positives;
    if positives == 0.0 || negatives == 0.0 {
        return None;
    }
    let mut sorted = rows.to_vec();
    sorted.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    let (mut figures, mut found, mut wrong) = (Figures::default(), 0.0, 0.0);
    // One step a distinct score: tied rows cannot be told apart by a threshold.
    for tied in sorted.chunk_by(|(a, _), (b, _)| a == b) {
        let more = tied.iter().filter(|(_, positive)| *positive).count() as f64;
        let less = tied.len() as f64 - more;
        figures.roc_auc += less / negatives * (found + more / 2.0) / positives;
        (found, wrong) = (found + more, wrong + less);
        figures.pr_auc += more / positives * found / (found + wrong);
        if wrong / negatives <= 0.001 {
            figures.recall_at_fpr_0_001 = found / positives;
        }
    }
    Some(figures)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_worked_by_hand() {
        let found = figures(&[(0.9, true), (0.8, false), (0.7, true), (0.7, false), (0.1, false)]).unwrap();
        let near = |a: f64, b: f64| (a - b).abs() < 1e-12;
        assert!(near(found.pr_auc, 0.75) && near(found.roc_auc, 0.75) && near(found.recall_at_fpr_0_001, 0.5), "{found:?}");
        assert_eq!(figures(&[(0.5, true)]), None);
    }
}
