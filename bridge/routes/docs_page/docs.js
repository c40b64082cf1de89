// Shows /openapi.json. Text nodes only, nothing from elsewhere.
function element(name, properties, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

function resolve(api, schema) {
  if (!schema || !schema.$ref) return schema || {};
  return schema.$ref.split("/").slice(1).reduce((value, key) => (value || {})[key], api) || {};
}

function typeOf(api, schema) {
  const known = resolve(api, schema);
  if (known.enum) return known.enum.map((value) => JSON.stringify(value)).join(" | ");
  if (known.anyOf) return known.anyOf.map((each) => typeOf(api, each)).filter((text) => text !== "null").join(" | ");
  if (known.type === "array") return `list of ${typeOf(api, known.items)}`;
  return known.type || "any";
}

function table(heads, rows) {
  return element("table", {},
    element("thead", {}, element("tr", {}, ...heads.map((head) => element("th", { scope: "col" }, head)))),
    element("tbody", {}, ...rows.map((row) => element("tr", {}, ...row.map((cell) => element("td", {}, cell))))));
}

function example(method, path, operation) {
  const topic = (operation.parameters || []).some((each) => each.name === "topic") ? "?topic=%23" : "";
  const url = `${location.origin}${path}${topic}`;
  if (method !== "post") return `curl -N '${url}'`;
  return `curl -X POST -H 'Content-Type: application/json' -d '{"topic": "a/b", "payload": 1}' '${url}'`;
}

function show(api, path, method, operation) {
  const parts = [element("p", {}, operation.description || "")];
  const parameters = operation.parameters || [];
  if (parameters.length) {
    parts.push(table(["Parameter", "In", "Type", "Meaning"], parameters.map((each) => [
      element("code", {}, each.name + (each.required ? " *" : "")), each.in, typeOf(api, each.schema),
      each.description || (each.schema || {}).description || "",
    ])));
  }
  const content = operation.requestBody && operation.requestBody.content["application/json"];
  if (content) {
    const schema = resolve(api, content.schema);
    parts.push(table(["Field", "Type", "Meaning"], Object.entries(schema.properties || {}).map(([name, field]) => [
      element("code", {}, name + ((schema.required || []).includes(name) ? " *" : "")), typeOf(api, field),
      field.description || "",
    ])));
  }
  parts.push(element("pre", {}, example(method, path, operation)));
  return element("details", { id: `${method}-${path}` },
    element("summary", {}, element("span", { className: "method" }, method.toUpperCase()),
      element("code", {}, path), element("span", { className: "muted" }, `  ${operation.summary || ""}`)),
    element("div", { className: "body" }, ...parts));
}

async function main() {
  const place = document.querySelector("main");
  const response = await fetch(place.dataset.openapi);
  const api = await response.json();
  const byTag = new Map();
  for (const [path, operations] of Object.entries(api.paths)) {
    for (const [method, operation] of Object.entries(operations)) {
      const tag = (operation.tags || ["other"])[0];
      byTag.set(tag, [...(byTag.get(tag) || []), show(api, path, method, operation)]);
    }
  }
  place.replaceChildren(
    element("h1", {}, `${api.info.title} ${api.info.version}`),
    element("p", { className: "muted" }, api.info.description || ""),
    ...[...byTag].flatMap(([tag, shown]) => [element("h2", {}, tag), ...shown]));
}

main().catch((error) => {
  document.querySelector("main").append(element("p", { role: "alert" }, `The description could not be loaded: ${error}`));
});
