// Stands in front of a forward proxy for clients that know of none: makes each request's target a
// whole URL, and changes nothing else.
//
//   node shim.mjs PORT PROXY_HOST:PORT ORIGIN_HOST:PORT
import http from 'http'

const [port, proxy, origin] = process.argv.slice(2)
const [host, proxyPort] = proxy.split(':')
const agent = new http.Agent({ keepAlive: true })

http.createServer((request, response) => {
  const headers = request.rawHeaders.slice()
  for (let i = 0; i < headers.length; i += 2) {
    if (headers[i].toLowerCase() === 'host') headers[i + 1] = origin
  }
  const passed = http.request({
    host,
    port: proxyPort,
    agent,
    method: request.method,
    path: `http://${origin}${request.url}`,
    headers,
    setHost: false
  })
  passed.on('response', answer => {
    response.sendDate = false
    response.writeHead(answer.statusCode, answer.statusMessage, answer.rawHeaders)
    answer.pipe(response)
    answer.on('error', () => response.destroy())
  })
  passed.on('error', () => response.destroy())
  request.pipe(passed)
}).listen(port, '127.0.0.1')
