// usage: dcmjs_send.js PORT FILE...   each file by npm's dcmjs-dimse over an association of its own; tells on a line what each was answered
// TLS_OWN (key and certificate) and TLS_TRUSTED, where they are set, name what it speaks TLS with.
const { readFileSync } = require('fs');
const { Client, requests, constants } = require('dcmjs-dimse');
require('dcmjs-dimse').log.setLevel?.('silent');

const pem = (name) => readFileSync(process.env[name]);
const tls = process.env.TLS_OWN && { securityOptions: { key: pem('TLS_OWN'), cert: pem('TLS_OWN'), ca: pem('TLS_TRUSTED') } };

function send(port, file) {
  return new Promise((resolve) => {
    const told = (answer) => resolve(`${answer} ${file}`);
    process.removeAllListeners('uncaughtException').on('uncaughtException', (error) => told(`error ${error.message}`));
    try {
      const request = new requests.CStoreRequest(file);
      let status = 'none';
      request.on('response', (response) => { status = response.getStatus(); });
      const client = new Client();
      client.addRequest(request);
      client.on('networkError', (error) => told(`error ${error.message}`));
      client.on('associationRejected', () => told('rejected'));
      client.on('closed', () => told(status));
      client.send('127.0.0.1', port, 'DCMJS', 'DICOMRCV', tls || {});
    } catch (error) {
      told(`error ${error.message}`);
    }
  });
}

(async () => {
  const [port, ...files] = process.argv.slice(2);
  for (const file of files) console.log(await send(Number(port), file));
})();
