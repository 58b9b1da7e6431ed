// HTTP server: /bytes/N answers N bytes with their length, /chunks/N the same in chunks, /events
// three server-sent events with pauses, /status/N that status and no body.
// Logs: port, method, target, status, body bytes of both.
const server = require('node:http').createServer((request, response) => {
  const [, kind, number] = request.url.split(/[/?]/);
  let received = 0;
  let sent = 0;
  const body = (text) => {
    sent += request.method === 'HEAD' ? 0 : text.length;
    return text;
  };
  response.on('close', () => {
    const { method, url } = request;
    console.log('log', request.socket.remotePort, method, url, response.statusCode, received, sent);
  });
  const answer = () => {
    if (kind === 'bytes') {
      response.setHeader('content-length', number);
      response.end(body('b'.repeat(+number)));
    } else if (kind === 'chunks') {
      for (let rest = +number; rest > 0; rest -= 1000) {
        response.write(body('c'.repeat(Math.min(rest, 1000))));
      }
      response.addTrailers({ 'x-end': 'yes' });
      response.end();
    } else if (kind === 'events') {
      response.setHeader('content-type', 'text/event-stream');
      const say = (left) => {
        response.write(body(`data: ${left}\n\n`));
        setTimeout(() => (left > 1 ? say(left - 1) : response.end()), 20);
      };
      say(3);
    } else {
      response.statusCode = +number || 200;
      response.end();
    }
  };
  request.on('data', (piece) => (received += piece.length));
  request.on('end', answer);
});
server.on('checkContinue', (request, response) => {
  response.writeContinue();
  server.emit('request', request, response);
});
server.listen(0, '127.0.0.1', () => console.log('port', server.address().port));
