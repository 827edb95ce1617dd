//! Checks a manifest against the structural schema of the resource, as an API server does before it looks at CEL.
//!
//! Needed where no API server is: `plan FILE` and `local FILE`. Patterns are left to [`crate::validate`], which parses
//! what they describe; everything else a structural schema of ours says is checked here, each fault with its path.

use serde_json::Value;

/// Checks `value` against `schema` and returns one line for each fault, with the path of the field at its head.
///
/// Unknown fields are faults: a misspelled field would otherwise be a default nobody asked for.
pub fn faults(schema: &Value, value: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    check(schema, value, "", &mut faults);
    faults
}

fn check(schema: &Value, value: &Value, path: &str, faults: &mut Vec<String>) {
    if value.is_null() && schema["nullable"] == Value::Bool(true) {
        return;
    }
    if schema["x-kubernetes-int-or-string"] == Value::Bool(true) {
        if !value.is_i64() && !value.is_string() {
            faults.push(format!("{path}: {value} is neither a whole number nor a string"));
        }
        return;
    }
    if let Some(wanted) = schema["type"].as_str()
        && !has_type(value, wanted)
    {
        faults.push(format!("{path}: {value} is not of type {wanted}"));
        return;
    }
    check_scalar(schema, value, path, faults);
    match value {
        Value::Object(fields) => check_object(schema, fields, path, faults),
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                check(&schema["items"], item, &format!("{path}[{index}]"), faults);
            }
        }
        _ => {}
    }
}

fn has_type(value: &Value, wanted: &str) -> bool {
    match wanted {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_i64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        _ => true,
    }
}

fn check_scalar(schema: &Value, value: &Value, path: &str, faults: &mut Vec<String>) {
    if let Some(accepted) = schema["enum"].as_array()
        && !accepted.contains(value)
    {
        let accepted: Vec<String> = accepted.iter().filter(|word| !word.is_null()).map(ToString::to_string).collect();
        faults.push(format!("{path}: {value} is not one of {}", accepted.join(", ")));
    }
    if let Some(number) = value.as_f64() {
        if let Some(minimum) = schema["minimum"].as_f64()
            && number < minimum
        {
            faults.push(format!("{path}: {value} is below the minimum {minimum}"));
        }
        if let Some(maximum) = schema["maximum"].as_f64()
            && number > maximum
        {
            faults.push(format!("{path}: {value} is above the maximum {maximum}"));
        }
    }
    if let Some(text) = value.as_str() {
        let length = text.chars().count() as u64;
        if let Some(least) = schema["minLength"].as_u64()
            && length < least
        {
            faults.push(format!("{path}: has {length} characters, at least {least} are needed"));
        }
        if let Some(most) = schema["maxLength"].as_u64()
            && length > most
        {
            faults.push(format!("{path}: has {length} characters, {most} are allowed"));
        }
    }
}

fn check_object(schema: &Value, fields: &serde_json::Map<String, Value>, path: &str, faults: &mut Vec<String>) {
    for name in schema["required"].as_array().into_iter().flatten() {
        if let Some(name) = name.as_str()
            && !fields.contains_key(name)
        {
            faults.push(format!("{}: is required", join(path, name)));
        }
    }
    if let Some(most) = schema["maxProperties"].as_u64()
        && fields.len() as u64 > most
    {
        faults.push(format!("{path}: has {} entries, {most} are allowed", fields.len()));
    }
    let known = schema["properties"].as_object();
    let others = &schema["additionalProperties"];
    let open =
        schema["x-kubernetes-preserve-unknown-fields"] == Value::Bool(true) || (known.is_none() && others.is_null());
    for (name, value) in fields {
        let path = join(path, name);
        if let Some(schema) = known.and_then(|known| known.get(name)) {
            check(schema, value, &path, faults);
        } else if others.is_object() {
            check(others, value, &path, faults);
        } else if !open {
            faults.push(format!("{path}: unknown field"));
        }
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn schema() -> Value {
        json!({
            "type": "object",
            "required": ["name"],
            "properties": {
                "name": { "type": "string", "maxLength": 3 },
                "count": { "type": "integer", "minimum": 0, "maximum": 5 },
                "mode": { "type": "string", "enum": ["A", "B"] },
                "map": { "type": "object", "additionalProperties": { "type": "string" } },
                "open": { "type": "object", "x-kubernetes-preserve-unknown-fields": true },
                "list": { "type": "array", "items": { "type": "integer" } },
                "any": { "x-kubernetes-int-or-string": true },
                "maybe": { "type": "string", "nullable": true },
            },
        })
    }

    #[test]
    fn accepts_what_fits() {
        let value = json!({
            "name": "abc", "count": 5, "mode": "B", "map": { "k": "v" }, "open": { "x": [1] },
            "list": [1, 2], "any": "1Gi", "maybe": null,
        });
        assert_eq!(faults(&schema(), &value), Vec::<String>::new());
    }

    #[test]
    fn names_the_path_of_every_fault() {
        let value = json!({
            "count": 6, "mode": "C", "map": { "k": 1 }, "list": [1, "x"], "any": true, "other": 1,
        });
        let found = faults(&schema(), &value);
        for start in [
            "name: is required",
            "count: 6 is above",
            "mode: \"C\" is not one of",
            "map.k: 1 is not",
            "list[1]: ",
            "any: true is neither",
            "other: unknown field",
        ] {
            assert!(found.iter().any(|fault| fault.starts_with(start)), "{start} not in {found:?}");
        }
        assert_eq!(found.len(), 7, "{found:?}");
        assert_eq!(faults(&schema(), &json!({ "name": "abcd" })).len(), 1);
        assert_eq!(faults(&schema(), &json!({ "name": "a", "count": -1 })).len(), 1);
    }
}
