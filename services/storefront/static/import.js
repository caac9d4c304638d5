// Shows how much of a file is sent; what became of its lines is the page that answers.
const form = document.getElementById("import");
form.addEventListener("submit", (event) => {
  event.preventDefault();
  const bar = document.getElementById("sent");
  const told = document.getElementById("import-status");
  const button = form.querySelector("button");
  document.getElementById("import-progress").hidden = false;
  button.disabled = true;
  const request = new XMLHttpRequest(); // fetch tells nothing of what was sent
  request.upload.addEventListener("progress", (part) => {
    bar.value = (100 * part.loaded) / part.total;
    told.textContent = part.loaded < part.total ? `${Math.floor(bar.value)} %` : "Sent. The shop is putting it on the shelves …";
  });
  request.addEventListener("loadend", () => {
    button.disabled = false;
    document.getElementById("import-progress").hidden = true;
    const result = new DOMParser().parseFromString(request.responseText, "text/html").getElementById("import-result");
    if (result) {
      document.getElementById("import-result").replaceWith(document.adoptNode(result));
    } else {
      document.getElementById("import-result").textContent = "The connection was lost. Lines that were read before are imported: send the file again, it changes nothing twice.";
    }
  });
  request.open("POST", form.action);
  request.send(new FormData(form));
});
