export function element<T extends HTMLElement = HTMLElement>(id: string): T {
  const found = document.getElementById(id);
  if (found === null) throw new Error(`the page has no #${id}`);
  return found as T;
}

/** "12 ms", "1.4 s". */
export function duration(milliseconds: number): string {
  if (milliseconds >= 1000) return `${(milliseconds / 1000).toFixed(1)} s`;
  return `${milliseconds < 10 ? milliseconds.toFixed(1) : Math.round(milliseconds)} ms`;
}

/** What is going on, at the foot of the picture; nothing for null. */
export function showBusy(text: string | null, progress?: number, canStop = false): void {
  element("busy").hidden = text === null;
  element("busy-text").textContent = text;
  const bar = element<HTMLProgressElement>("busy-bar");
  bar.hidden = progress === undefined;
  bar.value = progress ?? 0;
  element("stop").hidden = !canStop;
}

/** An error that stays until it is dismissed; `retry` is offered where it makes sense. */
export function showError(message: string, retry?: () => void): void {
  // A sentence begins with a capital; a file's name stays as it is.
  element("alert-text").textContent = message.replace(/^[a-z](?=[a-z]* )/, (first) => first.toUpperCase());
  const button = element("alert-retry");
  button.hidden = retry === undefined;
  button.onclick = () => {
    hideError();
    retry?.();
  };
  element("alert").hidden = false;
}

export function hideError(): void {
  element("alert").hidden = true;
}

/** A label and a figure. */
export function showStatus(id: string, label: string, figure: string): void {
  const strong = document.createElement("b");
  strong.textContent = figure;
  element(id).replaceChildren(label ? `${label} ` : "", strong);
}
