
"use strict";

const SHOWN_CHARACTERS = 100_000;
const SHOWN_ITEMS = 6;
const MOST_ROWS = 20;
const BASE = new URL(".", location.href).href.replace(/\/$/, "");
const keyInput = document.querySelector("#key input");
let api;

// An element. Children are elements or texts; texts never become markup.
function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children.flat().filter((child) => child !== null && child !== ""));
  return made;
}

// A text in which `backticks` mark code.
function prose(text = "") {
  return text.split("`").map((part, index) => (index % 2 ? element("code", {}, part) : part));
}

// --- Schemas -------------------------------------------------------------------------------------------------------

function resolved(schema) {
  return schema.$ref ? api.components.schemas[schema.$ref.split("/").pop()] : schema;
}

function options(schema) {
  return schema.anyOf ?? schema.oneOf ?? [schema];
}

// Components are named after their API family and their class.
function componentName(reference) {
  return reference.split("/").pop().replace(/^[a-z]+_/, "");
}

function typeName(schema) {
  if (schema.$ref) return componentName(schema.$ref);
  if ("const" in schema) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" | ");
  if (options(schema)[0] !== schema) return [...new Set(options(schema).map(typeName))].join(" | ");
  if (schema.type === "array") {
    const items = typeName(schema.items ?? {});
    return items.includes(" | ") ? `(${items})[]` : `${items}[]`;
  }
  if (typeof schema.additionalProperties === "object") {
    return `object of ${typeName(schema.additionalProperties)}`;
  }
  return schema.type ?? "any value";
}

function limits(schema) {
  const names = { minimum: "≥", exclusiveMinimum: ">", maximum: "≤", exclusiveMaximum: "<", minLength: "length ≥",
    maxLength: "length ≤", minItems: "items ≥", maxItems: "items ≤" };
  const found = options(schema).flatMap((option) =>
    Object.entries(names).filter(([name]) => name in option).map(([name, sign]) => `${sign} ${option[name]}`));
  if (![undefined, null, ""].includes(schema.default)) found.push(`default ${JSON.stringify(schema.default)}`);
  return [...new Set(found)].join(", ");
}

// The components that a schema refers to, one level deep.
function references(schema) {
  if (schema.$ref) return [schema.$ref];
  return [...options(schema).filter((option) => option !== schema), schema.items, schema.additionalProperties]
    .filter((inner) => inner && typeof inner === "object").flatMap(references);
}

function row(name, schema, description, required) {
  return element("tr", {},
    element("td", {},
      element("span", { className: "name" }, name),
      required ? element("span", { className: "required" }, "required") : null),
    element("td", {},
      element("span", { className: "type" }, typeName(schema)),
      prose(description),
      element("span", { className: "limits" }, limits(schema))));
}

// The fields of a component, and of those that it refers to; `seen` ends circles.
function fields(schema, seen = []) {
  const { properties = {}, required = [] } = resolved(schema);
  const inner = new Set(Object.values(properties).flatMap(references).filter((each) => !seen.includes(each)));
  return [
    element("table", {}, element("tbody", {}, Object.entries(properties).map(([name, each]) =>
      row(name, each, each.description, required.includes(name))))),
    [...inner].filter((each) => resolved({ $ref: each }).properties).map((each) =>
      element("details", { className: "nested" },
        element("summary", {}, "Fields of ", element("code", {}, componentName(each))),
        fields({ $ref: each }, [...seen, each]))),
  ].flat();
}

function described(schema) {
  const components = references(schema).filter((each) => resolved({ $ref: each }).properties);
  if (!components.length) return [element("p", {}, element("code", {}, typeName(schema)))];
  if (schema.$ref) return fields(schema, components);
  if (components.length === 1) {
    return [element("p", {}, element("code", {}, typeName(schema))), ...fields({ $ref: components[0] }, components)];
  }
  return components.flatMap((each, index) => [
    element("p", {}, `${index ? "Or" : "Either"} `, element("code", {}, each.split("/").pop().replace("_", ": "))),
    ...fields({ $ref: each }, [each]),
  ]);
}

// --- One route -----------------------------------------------------------------------------------------------------

function parameters(operation) {
  const given = operation.parameters ?? [];
  if (!given.length) return [];
  const rows = given.map((each) =>
    row(each.name, each.schema, `${each.description ?? ""} (${each.in})`.trim(), each.required));
  return [element("h3", {}, "Parameters"), element("table", {}, element("tbody", {}, rows))];
}

function answers(operation) {
  return [element("h3", {}, "Answers"), ...Object.entries(operation.responses).map(([status, answer]) => {
    const [type, content] = Object.entries(answer.content ?? {})[0] ?? ["", { schema: {} }];
    const body = type === "application/json" ? described(content.schema) : [element("p", {}, element("code", {}, type))];
    return element("details", { className: "answer" },
      element("summary", {},
        element("span", { className: `status ${status < 400 ? "ok" : "bad"}` }, status), answer.description),
      ...body);
  })];
}

function quoted(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

// The request as a command for a POSIX shell.
function curl(method, url, headers, body) {
  const verb = method === "GET" || body !== null ? "" : `-X ${method} `;
  const lines = [`curl ${verb}${/[?&{}]/.test(url) ? quoted(url) : url}`];
  for (const [name, value] of Object.entries(headers)) lines.push(`-H ${quoted(`${name}: ${value}`)}`);
  if (body !== null) lines.push(`-d ${quoted(body)}`);
  return lines.join(" \\\n  ");
}

function copied(text) {
  const button = element("button", { type: "button" }, "Copy");
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(text.textContent);
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
  return element("div", { className: "copy" }, text, button);
}

// The form that sends a request, and the same request for curl.
function tryIt(method, path, operation) {
  const content = operation.requestBody?.content?.["application/json"];
  const examples = Object.values(content?.examples ?? {});
  const inputs = (operation.parameters ?? []).filter((each) => each.in !== "header")
    .map((each) => ({ ...each, input: element("input", { placeholder: each.required ? "required" : "" }) }));
  const body = content ? element("textarea", { spellcheck: false, ariaLabel: "Body" }) : null;
  const choice = element("select", { ariaLabel: "Example" }, examples.map((each) => element("option", {}, each.summary)));
  const command = element("pre");
  const result = element("div", { ariaLive: "polite" });
  const send = element("button", { type: "submit", className: "send" }, "Send");
  const stop = element("button", { type: "button", hidden: true }, "Stop");

  const showExample = () => {
    body.value = JSON.stringify(examples[choice.selectedIndex]?.value ?? {}, null, 2);
    body.rows = Math.min(body.value.split("\n").length + 1, MOST_ROWS);
  };
  const request = (key) => {
    let filled = path;
    const query = new URLSearchParams();
    for (const { name, in: place, input } of inputs) {
      if (!input.value) continue;
      if (place === "path") filled = filled.replace(`{${name}}`, encodeURIComponent(input.value));
      else query.set(name, input.value);
    }
    const headers = {};
    if (key && api.security.length && operation.security?.length !== 0) headers.Authorization = `Bearer ${key}`;
    if (body) headers["Content-Type"] = "application/json";
    return { method, url: `${BASE}${filled}${query.size ? `?${query}` : ""}`, headers, body: body ? body.value : null };
  };
  const showCommand = () => {
    const { url, headers, body: sent } = request(keyInput.value || "YOUR_API_KEY");
    command.textContent = curl(method, url, headers, sent === null ? null : oneLine(sent));
  };

  const form = element("form", {},
    inputs.map(({ name, input }) => element("div", { className: "row" }, element("label", {}, element("code", {}, name), input))),
    examples.length > 1 ? element("div", { className: "row" }, choice) : null,
    body,
    element("div", { className: "row" }, send, stop));
  choice.addEventListener("change", () => { showExample(); showCommand(); });
  form.addEventListener("input", showCommand);
  keyInput.addEventListener("input", showCommand);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const abort = new AbortController();
    stop.onclick = () => abort.abort();
    [send.disabled, stop.hidden] = [true, false];
    await run(request(keyInput.value), abort.signal, result);
    [send.disabled, stop.hidden] = [false, true];
  });
  if (body) showExample();
  showCommand();
  return [element("h3", {}, "Try it"), form, result, element("h3", {}, "With curl"), copied(command)];
}

function oneLine(json) {
  try {
    return JSON.stringify(JSON.parse(json));
  } catch {
    return json;
  }
}

// Sends a request and shows its answer as it arrives.
async function run({ url, ...init }, signal, result) {
  const started = performance.now();
  const text = element("pre");
  result.replaceChildren();
  try {
    const answer = await fetch(url, { ...init, signal });
    const head = element("p", {},
      element("span", { className: `status ${answer.ok ? "ok" : "bad"}` }, `${answer.status} ${answer.statusText}`));
    const headers = element("details", { className: "nested" }, element("summary", {}, "Headers"),
      element("pre", {}, [...answer.headers].map((pair) => pair.join(": ")).join("\n")));
    result.replaceChildren(head, text, headers);
    let received = "";
    const decoder = new TextDecoder();
    for (const reader = answer.body.getReader(); ;) {
      const { value, done } = await reader.read();
      if (done) break;
      received += decoder.decode(value, { stream: true });
      text.textContent = received.slice(-SHOWN_CHARACTERS);
    }
    head.append(` in ${Math.round(performance.now() - started)} ms, ${received.length} characters`);
    text.textContent = readable(received).slice(0, SHOWN_CHARACTERS);
  } catch (error) {
    if (error.name === "AbortError") return;
    result.replaceChildren(element("p", { className: "bad" }, `No answer: ${error.message}`));
  }
}

// JSON in lines, with long lists of numbers shortened; other texts unchanged.
function readable(text) {
  try {
    return layout(JSON.parse(text), "");
  } catch {
    return text;
  }
}

function layout(value, indent) {
  if (value === null || typeof value !== "object") return JSON.stringify(value);
  const deeper = `${indent}  `;
  if (Array.isArray(value)) {
    if (value.every((each) => each === null || typeof each !== "object")) {
      const shown = value.slice(0, SHOWN_ITEMS).map((each) => JSON.stringify(each)).join(", ");
      return value.length > SHOWN_ITEMS ? `[${shown}, … ${value.length} in all]` : `[${shown}]`;
    }
    return `[\n${value.map((each) => deeper + layout(each, deeper)).join(",\n")}\n${indent}]`;
  }
  const entries = Object.entries(value).map(([name, each]) => `${deeper}${JSON.stringify(name)}: ${layout(each, deeper)}`);
  return entries.length ? `{\n${entries.join(",\n")}\n${indent}}` : "{}";
}

// --- The page ------------------------------------------------------------------------------------------------------

function inside(method, path, operation) {
  const content = Object.entries(operation.requestBody?.content ?? {})[0];
  return element("div", { className: "inside" },
    element("div", {},
      operation.description ? element("p", {}, prose(operation.description)) : null,
      content ? [element("h3", {}, `Body: ${content[0]}`), ...described(content[1].schema)] : null,
      parameters(operation),
      answers(operation)),
    element("div", {}, tryIt(method, path, operation)));
}

function article({ method, path, operation }) {
  const details = element("details", {},
    element("summary", {},
      element("span", { className: `method ${method.toLowerCase()}` }, method),
      element("span", { className: "path" }, path),
      element("span", { className: "about" }, prose(operation.summary))));
  // Filled when it is first opened: most never are.
  details.fill = () => {
    if (details.childElementCount === 1) details.append(inside(method, path, operation));
  };
  details.addEventListener("toggle", details.fill);
  return element("article", { id: operation.operationId }, details);
}

function open(details) {
  details.fill();
  details.open = true;
}

// Opens the route that the address names; `#all` opens every route.
function openNamed() {
  const name = decodeURIComponent(location.hash.slice(1));
  if (name === "all") document.querySelectorAll("article > details").forEach(open);
  const named = name && document.getElementById(name)?.querySelector("details");
  if (named) {
    open(named);
    named.scrollIntoView();
  }
}

function filter(wanted) {
  for (const group of document.querySelectorAll("main section, #entries section")) {
    const routes = [...group.querySelectorAll("[data-words]")];
    for (const route of routes) route.hidden = !route.dataset.words.includes(wanted.trim().toLowerCase());
    group.hidden = routes.every((route) => route.hidden);
  }
}

function show() {
  const { title, version, description } = api.info;
  document.title = title;
  document.querySelector("h1").replaceChildren(title, element("small", {}, version));
  document.querySelector("#description").textContent = description;
  document.querySelector("#links").append(
    element("a", { href: "openapi.json" }, "openapi.json"), element("a", { href: "#all" }, "Open all routes"));
  document.querySelector("#key").hidden = !api.security.length;

  const routes = Object.entries(api.paths).flatMap(([path, operations]) =>
    Object.entries(operations).map(([method, operation]) => ({ method: method.toUpperCase(), path, operation })));
  for (const [family, members] of Map.groupBy(routes, ({ operation }) => operation.tags[0])) {
    const sections = [element("section", {}, element("h2", {}, family)), element("section", {}, element("h2", {}, family))];
    for (const route of members) {
      const { method, path, operation } = route;
      const entry = element("a", { href: `#${operation.operationId}` },
        element("span", { className: `method ${method.toLowerCase()}` }, method),
        element("span", { className: "path" }, path));
      for (const [index, each] of [entry, article(route)].entries()) {
        each.dataset.words = `${method} ${path} ${operation.summary} ${family}`.toLowerCase();
        sections[index].append(each);
      }
    }
    document.querySelector("#entries").append(sections[0]);
    document.querySelector("main").append(sections[1]);
  }
  document.querySelector("#filter").addEventListener("input", (event) => filter(event.target.value));
  document.querySelector("#contents").open = matchMedia("(min-width: 45.01rem)").matches;
  window.addEventListener("hashchange", openNamed);
  openNamed();
}

fetch("openapi.json")
  .then((answer) => answer.json())
  .then((document_) => { api = document_; show(); })
  .catch((error) => document.querySelector("main").replaceChildren(
    element("p", { className: "bad" }, `openapi.json cannot be read: ${error.message}`)));
