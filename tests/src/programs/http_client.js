// HTTP client: one request, then the end of the connection.
const url = process.argv.at(-1);
require('node:http').get(url, { agent: false }, (response) => {
  response.resume();
  response.on('end', () => console.log('done', response.statusCode));
});
