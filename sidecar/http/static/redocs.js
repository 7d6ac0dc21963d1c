// Search would need a worker made from a blob, which the pages' content security policy forbids.
Redoc.init("openapi.json", { disableSearch: true }, document.getElementById("page"));
