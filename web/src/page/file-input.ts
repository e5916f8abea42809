/** Opens images that are chosen as a file, dropped or pasted. */

import { element, showError } from "./dom.ts";
import { openImage } from "./open-image.ts";

export function listenForFiles(): void {
  const input = element<HTMLInputElement>("file");
  for (const id of ["open", "choose"]) element(id).addEventListener("click", () => input.click());
  input.addEventListener("change", () => {
    const file = input.files?.[0];
    if (file) void openImage(file, file.name);
    input.value = "";
  });

  const dropHint = element("drop");
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    dropHint.hidden = false;
  });
  document.addEventListener("dragleave", (event) => {
    if (event.relatedTarget === null) dropHint.hidden = true;
  });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    dropHint.hidden = true;
    openFirstFile(event.dataTransfer);
  });
  document.addEventListener("paste", (event) => openFirstFile(event.clipboardData));
}

function openFirstFile(data: DataTransfer | null): void {
  const file = data?.files[0];
  if (file) void openImage(file, file.name);
  else showError("no picture file was given; expected JPEG, PNG, WebP or another image format");
}
