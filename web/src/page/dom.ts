/** Returns the page's element with an id. Throws if it is missing. */
export function element<T extends HTMLElement = HTMLElement>(id: string): T {
  const found = document.getElementById(id);
  if (found === null) throw new Error(`the page has no #${id}`);
  return found as T;
}

/** Sets the document's `data-state`, the name of what the page is doing. */
export function setPageState(name: string): void {
  document.documentElement.dataset.state = name;
}

/** Formats a duration, for example "12 ms" or "1.4 s". */
export function duration(milliseconds: number): string {
  if (milliseconds >= 1000) return `${(milliseconds / 1000).toFixed(1)} s`;
  return `${milliseconds < 10 ? milliseconds.toFixed(1) : Math.round(milliseconds)} ms`;
}

/** Shows what the page is doing, with progress from 0 to 1; null hides it. */
export function showBusy(text: string | null, progress?: number, canStop = false): void {
  element("busy").hidden = text === null;
  element("busy-text").textContent = text;
  const bar = element<HTMLProgressElement>("busy-bar");
  bar.hidden = progress === undefined;
  bar.value = progress ?? 0;
  element("stop").hidden = !canStop;
}

/** Shows an error until the user dismisses it, with a button for `retry` if given. */
export function showError(message: string, retry?: () => void): void {
  // Capitalize the first word, unless it is a file name.
  element("alert-text").textContent = message.replace(/^[a-z](?=[a-z]* )/, (letter) => letter.toUpperCase());
  const button = element("alert-retry");
  button.hidden = retry === undefined;
  button.onclick = () => {
    hideError();
    retry?.();
  };
  element("alert").hidden = false;
}

/** Hides the error. */
export function hideError(): void {
  element("alert").hidden = true;
}

/** Shows a label and a value in the status bar. */
export function showStatus(id: string, label: string, value: string): void {
  const strong = document.createElement("b");
  strong.textContent = value;
  element(id).replaceChildren(label ? `${label} ` : "", strong);
}
