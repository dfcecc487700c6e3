//! A query of GraphQL, made from the members of an answer.

use super::tree::Node;

/// Deepest selection.
const DEEPEST: usize = 6;

/// A query that asks for what the answer has, and whether it asks for several jobs.
/// `None` where the answer is none of GraphQL.
pub(super) fn query(body: &Node, many: bool) -> Option<String> {
    let data = body.get("data")?;
    let (field, node) = data.members().first().filter(|_| data.members().len() == 1)?;
    let (parameters, argument) = if many { ("$ids: [ID!]!", "ids: $ids") } else { ("$id: ID!", "id: $id") };
    Some(format!("query({parameters}) {{ {field}({argument}){} }}", selection(node, DEEPEST)))
}

/// The members of an object in braces.
fn selection(node: &Node, depth: usize) -> String {
    let members = match node {
        Node::List(nodes) => {
            return nodes
                .iter()
                .find(|node| node.is_object())
                .map(|node| selection(node, depth))
                .unwrap_or_default();
        }
        node => node.members(),
    };
    let Some(depth) = depth.checked_sub(1) else { return String::new() };
    let names = members.iter().map(|(name, node)| format!("{name}{}", selection(node, depth)));
    let names: Vec<String> = names.collect();
    if names.is_empty() { String::new() } else { format!(" {{ {} }}", names.join(" ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_asks_for_the_members_of_the_answer() {
        let body = r#"{"data": {"run": {"id": "a", "status": "X", "stats": {"n": 1}, "steps": [{"key": 1}], "none": []}}}"#;
        assert_eq!(
            query(&Node::parse(body).unwrap(), false).unwrap(),
            "query($id: ID!) { run(id: $id) { id status stats { n } steps { key } none } }"
        );
        let list = r#"{"data": {"nodes": [null, {"id": "a"}]}}"#;
        assert_eq!(
            query(&Node::parse(list).unwrap(), true).unwrap(),
            "query($ids: [ID!]!) { nodes(ids: $ids) { id } }"
        );
        assert_eq!(query(&Node::parse("{\"data\": {\"a\": 1, \"b\": 2}}").unwrap(), false), None);
    }
}
