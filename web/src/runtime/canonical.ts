/**
 * Returns the canonical JSON text over which a manifest's `integrity` hash is computed: keys sorted, no
 * whitespace, numbers spelled as in `text` (`JSON.parse` would turn 1.0 into 1).
 *
 * `text` is valid JSON; `omit` is a key of the outermost object to leave out.
 */
export function canonicalJson(text: string, omit?: string): string {
  const tokens = text.match(/"(?:[^"\\]|\\.)*"|[{}[\],:]|[^\s{}[\],:"]+/gs) ?? [];
  let at = 0;
  const value = (outermost: boolean): string => {
    const token = tokens[at++];
    if (token === "[") {
      const items: string[] = [];
      while (tokens[at] !== "]") {
        items.push(value(false));
        if (tokens[at] === ",") at++;
      }
      at++;
      return `[${items.join(",")}]`;
    }
    if (token === "{") {
      const entries = new Map<string, string>();
      while (tokens[at] !== "}") {
        const key: string = JSON.parse(tokens[at]);
        at += 2;
        entries.set(key, value(false));
        if (tokens[at] === ",") at++;
      }
      at++;
      if (outermost && omit !== undefined) entries.delete(omit);
      const sorted = [...entries].sort(([a], [b]) => (a < b ? -1 : 1));
      return `{${sorted.map(([key, item]) => `${JSON.stringify(key)}:${item}`).join(",")}}`;
    }
    return token.startsWith('"') ? JSON.stringify(JSON.parse(token)) : token;
  };
  return value(true);
}
