//! `docs/openapi.json`, and whether what the daemon says is what it says.

use serde_json::Value;

use crate::fixture;

/// The document.
pub struct OpenApi(Value);

impl OpenApi {
    pub fn read() -> Self {
        Self(serde_json::from_slice(&std::fs::read(fixture::root("docs/openapi.json")).unwrap()).unwrap())
    }

    /// All (path, method) pairs.
    pub fn operations(&self) -> Vec<(String, String)> {
        let paths = self.0["paths"].as_object().unwrap().iter();
        let methods = ["get", "post", "put", "delete"];
        let of_path = |(path, item): (&String, &Value)| {
            let present = methods.iter().filter(|method| item.get(**method).is_some());
            present.map(|method| (path.clone(), method.to_uppercase())).collect::<Vec<_>>()
        };
        paths.flat_map(of_path).collect()
    }

    /// The schema of that name.
    pub fn schema(&self, name: &str) -> &Value {
        &self.0["components"]["schemas"][name]
    }

    /// Asserts that an operation may answer with this status and body.
    #[track_caller]
    pub fn allows(&self, method: &str, path: &str, status: u16, body: &Value) {
        let responses = &self.0["paths"][path][method.to_lowercase()]["responses"];
        let response = &responses[status.to_string()];
        assert!(
            response.is_object(),
            "{method} {path} answers {status}, which is not in the document: {body}"
        );
        let schema = &response["content"]["application/json"]["schema"];
        if schema.is_object() {
            self.conforms(body, schema, &format!("{method} {path} {status}"));
        }
    }

    /// Asserts that a value fits a schema.
    #[track_caller]
    pub fn conforms(&self, value: &Value, schema: &Value, place: &str) {
        if let Some(name) = schema["$ref"].as_str() {
            return self.conforms(value, self.schema(name.rsplit('/').next().unwrap()), place);
        }
        let kind = match value {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(n) if n.is_u64() || n.is_i64() => "integer",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        let fits = |want: &Value| *want == kind || (*want == "number" && kind == "integer");
        let is_kind =
            schema["type"].as_array().map_or_else(|| fits(&schema["type"]), |any| any.iter().any(fits));
        assert!(is_kind, "{place}: {value} is {kind}, expected {}", schema["type"]);
        if let Some(words) = schema["enum"].as_array() {
            assert!(words.contains(value), "{place}: {value} is not one of {words:?}");
        }
        for item in value.as_array().into_iter().flatten() {
            self.conforms(item, &schema["items"], &format!("{place}[]"));
        }
        let Some(object) = value.as_object() else { return };
        for name in schema["required"].as_array().into_iter().flatten() {
            assert!(object.contains_key(name.as_str().unwrap()), "{place}: {value} has no {name}");
        }
        for (name, value) in object {
            let property = &schema["properties"][name];
            assert!(property.is_object(), "{place}: `{name}` is not in the document");
            self.conforms(value, property, &format!("{place}.{name}"));
        }
    }
}
