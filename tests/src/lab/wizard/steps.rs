//! The steps of a plan, as its document names them.

use serde_json::Value;

/// What is done to copy, to cut over, and once the target is accepted, each in its order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Steps {
    /// Until the target follows.
    pub copying: Vec<String>,
    /// From there until it has taken over.
    pub cutover: Vec<String>,
    /// When it is accepted.
    pub accepting: Vec<String>,
}

impl Steps {
    /// Every step of a plan: what this does not know is of the cut-over.
    pub fn of(plan: &Value) -> Self {
        let mut steps = Self::default();
        for step in plan["plan"]["steps"].as_array().map_or(&[] as &[Value], Vec::as_slice) {
            let step = &step["step"];
            let part = match step["do"].as_str().unwrap_or_default() {
                "back_up" | "prepare" | "capture" | "copy" | "fit" | "index" | "verify" => &mut steps.copying,
                "back_up_again" => &mut steps.accepting,
                _ => &mut steps.cutover,
            };
            part.push(step_id(step));
        }
        steps
    }
}

/// A step's short name, as events have it: `catch-up:shop`.
pub fn step_id(step: &Value) -> String {
    let name = step["do"].as_str().unwrap_or_default().replace("back_up", "backup").replace('_', "-");
    step["dataset"].as_str().map_or_else(|| name.clone(), |dataset| format!("{name}:{dataset}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_step_has_its_part_and_its_name() {
        let step = |kind: Value| json!({ "step": kind, "rows": 0 });
        let plan = json!({ "plan": { "steps": [
            step(json!({ "do": "back_up", "dataset": "target" })),
            step(json!({ "do": "prepare" })),
            step(json!({ "do": "copy", "dataset": "shop" })),
            step(json!({ "do": "catch_up", "dataset": "shop" })),
            step(json!({ "do": "something_new" })),
            step(json!({ "do": "back_up_again", "dataset": "source" })),
        ] } });
        let steps = Steps::of(&plan);
        assert_eq!(steps.copying, ["backup:target", "prepare", "copy:shop"]);
        assert_eq!(steps.cutover, ["catch-up:shop", "something-new"]);
        assert_eq!(steps.accepting, ["backup-again:source"]);
    }
}
