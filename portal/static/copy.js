// A button beside each command and digest that copies it whole. Without scripts, or where the
// browser gives no clipboard (plain http), nothing is added: the text can be selected as it is.
"use strict";

function addCopyButton(element) {
  const button = document.createElement("button");
  const what = element.matches("pre") ? "command" : "digest";
  button.type = "button";
  button.className = "quiet copy";
  button.textContent = "Copy";
  button.setAttribute("aria-label", `Copy this ${what}`);
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(element.dataset.copy || element.textContent.trim());
      button.textContent = "Copied";
    } catch {
      button.textContent = "Select and copy it by hand";
    }
    status.textContent = button.textContent;
    setTimeout(() => { button.textContent = "Copy"; status.textContent = ""; }, 4000);
  });
  element.after(button);
}

const status = document.createElement("p");
status.className = "unseen";
status.setAttribute("role", "status");

if (navigator.clipboard) {
  document.getElementById("main").append(status);
  document.querySelectorAll("pre.command, [data-copy]").forEach(addCopyButton);
}
