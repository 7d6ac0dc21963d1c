SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#page",
  deepLinking: true,
  tryItOutEnabled: true,
  // The badge would be fetched from swagger.io, with the document's address.
  validatorUrl: null,
});
