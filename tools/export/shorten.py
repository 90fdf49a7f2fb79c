"""What an exported graph can do without: notes for people, constants that are there twice, long names of values."""

import onnx


def shorten(graph: onnx.GraphProto) -> None:
    """Leave all of it out. The nodes keep their names, which are the paths of the modules."""
    for node in graph.node:
        node.doc_string = ""
    merge_constants(graph)
    shorten_values(graph)


def merge_constants(graph: onnx.GraphProto) -> None:
    """Keep one of each group of equal `Constant` nodes: the exporter writes one wherever one is used."""
    kept, renamed, nodes = {}, {}, []
    for node in graph.node:
        if node.op_type == "Constant":
            content = b"".join(attribute.SerializeToString(deterministic=True) for attribute in node.attribute)
            first = kept.setdefault(content, node.output[0])
            if first != node.output[0]:
                renamed[node.output[0]] = first
                continue
        nodes.append(node)
    rename(nodes, renamed)
    del graph.node[:]
    graph.node.extend(nodes)


def shorten_values(graph: onnx.GraphProto) -> None:
    """Number the values between the nodes. The nodes keep their names, which are the paths of the modules."""
    outputs = {value.name for value in graph.output}
    inner = [name for node in graph.node for name in node.output if name not in outputs]
    rename(graph.node, {name: f"v{number}" for number, name in enumerate(inner)})


def rename(nodes, renamed: dict[str, str]) -> None:
    """Replace the names of values wherever the nodes read or write them."""
    for node in nodes:
        node.input[:] = [renamed.get(name, name) for name in node.input]
        node.output[:] = [renamed.get(name, name) for name in node.output]
