// HTTP server: 1,000 bytes to everybody.
const server = require('node:http').createServer((request, response) => {
  response.end('x'.repeat(1000));
});
server.listen(0, '127.0.0.1', () => console.log('port', server.address().port));
