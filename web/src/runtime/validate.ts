/**
 * Validates the subset of JSON Schema (draft 2020-12) that the manifest's schema uses, as in
 * sam_edge/bundle/schema.py.
 */

type Schema = Record<string, unknown>;

function hasType(value: unknown, name: string): boolean {
  switch (name) {
    case "object":
      return typeof value === "object" && value !== null && !Array.isArray(value);
    case "array":
      return Array.isArray(value);
    case "integer":
      return Number.isInteger(value);
    case "null":
      return value === null;
    default:
      return typeof value === name;
  }
}

const describe = (value: unknown) => JSON.stringify(value)?.slice(0, 60) ?? "nothing";

/** Validates `value` against `schema`. Throws an `Error` that names the location of the first violation. */
export function validate(value: unknown, schema: Schema, root: Schema = schema, where = "manifest"): void {
  const fail = (what: string): never => {
    throw new Error(`${where} ${what}`);
  };
  if (typeof schema.$ref === "string") {
    const definitions = root.$defs as Record<string, Schema>;
    validate(value, definitions[schema.$ref.replace("#/$defs/", "")], root, where);
  }
  if (schema.type !== undefined) {
    const names = [schema.type].flat() as string[];
    if (!names.some((name) => hasType(value, name)))
      fail(`should be ${names.join(" or ")}, not ${describe(value)}`);
  }
  if ("const" in schema && value !== schema.const)
    fail(`should be ${describe(schema.const)}, not ${describe(value)}`);
  if (Array.isArray(schema.enum) && !schema.enum.includes(value))
    fail(`should be one of ${schema.enum.join(", ")}, not ${describe(value)}`);
  if (typeof value === "string" && typeof schema.pattern === "string" && !RegExp(schema.pattern).test(value))
    fail(`should match ${schema.pattern}, not ${describe(value)}`);
  if (typeof value === "number") {
    if (value < ((schema.minimum as number | undefined) ?? value))
      fail(`should be at least ${schema.minimum}, not ${value}`);
    if (value > ((schema.maximum as number | undefined) ?? value))
      fail(`should be at most ${schema.maximum}, not ${value}`);
  }
  if (Array.isArray(value)) {
    const { minItems = 0, maxItems = value.length } = schema as { minItems?: number; maxItems?: number };
    if (value.length < minItems || value.length > maxItems)
      fail(`has the wrong number of items, ${value.length}`);
    for (const [index, item] of value.entries())
      validate(item, (schema.items as Schema | undefined) ?? {}, root, `${where}[${index}]`);
  } else if (hasType(value, "object")) {
    const properties = (schema.properties as Record<string, Schema> | undefined) ?? {};
    const object = value as Record<string, unknown>;
    for (const name of (schema.required as string[] | undefined) ?? [])
      if (!Object.hasOwn(object, name)) fail(`lacks ${describe(name)}`);
    for (const [name, item] of Object.entries(object)) {
      if (Object.hasOwn(properties, name)) validate(item, properties[name], root, `${where}.${name}`);
      else if (schema.additionalProperties === false) fail(`has an unknown key ${describe(name)}`);
    }
  }
}
