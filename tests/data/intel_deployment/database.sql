--
-- PostgreSQL database dump
--


-- Dumped from database version 15.18 (Debian 15.18-0+deb12u1)
-- Dumped by pg_dump version 15.18 (Debian 15.18-0+deb12u1)

SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;

SET default_tablespace = '';

SET default_table_access_method = heap;

--
-- Name: alembic_version; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.alembic_version (
    version_num character varying(32) NOT NULL
);


--
-- Name: model_version_tags; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.model_version_tags (
    key character varying(250) NOT NULL,
    value character varying(5000),
    name character varying(256) NOT NULL,
    version integer NOT NULL
);


--
-- Name: model_versions; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.model_versions (
    name character varying(256) NOT NULL,
    version integer NOT NULL,
    creation_time bigint,
    last_updated_time bigint,
    description character varying(5000),
    user_id character varying(256),
    current_stage character varying(20),
    source character varying(500),
    run_id character varying(32),
    status character varying(20),
    status_message character varying(500),
    run_link character varying(500),
    storage_location character varying(500)
);


--
-- Name: registered_model_aliases; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.registered_model_aliases (
    alias character varying(256) NOT NULL,
    version integer NOT NULL,
    name character varying(256) NOT NULL
);


--
-- Name: registered_model_tags; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.registered_model_tags (
    key character varying(250) NOT NULL,
    value character varying(5000),
    name character varying(256) NOT NULL
);


--
-- Name: registered_models; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.registered_models (
    name character varying(256) NOT NULL,
    creation_time bigint,
    last_updated_time bigint,
    description character varying(5000)
);


--
-- Data for Name: alembic_version; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.alembic_version VALUES ('0584bdc529eb');


--
-- Data for Name: model_version_tags; Type: TABLE DATA; Schema: public; Owner: -
--



--
-- Data for Name: model_versions; Type: TABLE DATA; Schema: public; Owner: -
--



--
-- Data for Name: registered_model_aliases; Type: TABLE DATA; Schema: public; Owner: -
--



--
-- Data for Name: registered_model_tags; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.registered_model_tags VALUES ('id', 'zz-filter-000000001', 'zz-filter-000000001');
INSERT INTO public.registered_model_tags VALUES ('name', 'YOLOX Small', 'zz-filter-000000001');
INSERT INTO public.registered_model_tags VALUES ('version', '1', 'zz-filter-000000001');
INSERT INTO public.registered_model_tags VALUES ('project_name', 'Cattle Farm', 'zz-filter-000000001');
INSERT INTO public.registered_model_tags VALUES ('category', 'Detection', 'zz-filter-000000001');
INSERT INTO public.registered_model_tags VALUES ('architecture', 'YOLOX-S', 'zz-filter-000000001');
INSERT INTO public.registered_model_tags VALUES ('precision', '[''fp16'']', 'zz-filter-000000001');
INSERT INTO public.registered_model_tags VALUES ('size', '1295', 'zz-filter-000000001');
INSERT INTO public.registered_model_tags VALUES ('target_device', 'CPU', 'zz-filter-000000001');
INSERT INTO public.registered_model_tags VALUES ('score', '0.0', 'zz-filter-000000001');
INSERT INTO public.registered_model_tags VALUES ('file_url', 'minio://model-registry/zz-filter-000000001/model.zip', 'zz-filter-000000001');
INSERT INTO public.registered_model_tags VALUES ('id', 'aa-filter-000000002', 'aa-filter-000000002');
INSERT INTO public.registered_model_tags VALUES ('name', 'yolox small', 'aa-filter-000000002');
INSERT INTO public.registered_model_tags VALUES ('version', '2', 'aa-filter-000000002');
INSERT INTO public.registered_model_tags VALUES ('project_name', 'cattle farm', 'aa-filter-000000002');
INSERT INTO public.registered_model_tags VALUES ('category', 'detection', 'aa-filter-000000002');
INSERT INTO public.registered_model_tags VALUES ('architecture', 'yolox-s', 'aa-filter-000000002');
INSERT INTO public.registered_model_tags VALUES ('precision', '[''int8'']', 'aa-filter-000000002');
INSERT INTO public.registered_model_tags VALUES ('size', '1295', 'aa-filter-000000002');
INSERT INTO public.registered_model_tags VALUES ('target_device', 'CPU', 'aa-filter-000000002');
INSERT INTO public.registered_model_tags VALUES ('score', '0.0', 'aa-filter-000000002');
INSERT INTO public.registered_model_tags VALUES ('file_url', 'minio://model-registry/aa-filter-000000002/model.zip', 'aa-filter-000000002');
INSERT INTO public.registered_model_tags VALUES ('id', 'MM-filter-000000003', 'MM-filter-000000003');
INSERT INTO public.registered_model_tags VALUES ('name', 'SSD 100% sure', 'MM-filter-000000003');
INSERT INTO public.registered_model_tags VALUES ('version', '1.0', 'MM-filter-000000003');
INSERT INTO public.registered_model_tags VALUES ('project_name', 'Weld Line', 'MM-filter-000000003');
INSERT INTO public.registered_model_tags VALUES ('category', 'Classification', 'MM-filter-000000003');
INSERT INTO public.registered_model_tags VALUES ('architecture', 'SSD', 'MM-filter-000000003');
INSERT INTO public.registered_model_tags VALUES ('precision', '[''fp32'']', 'MM-filter-000000003');
INSERT INTO public.registered_model_tags VALUES ('size', '1295', 'MM-filter-000000003');
INSERT INTO public.registered_model_tags VALUES ('target_device', 'CPU', 'MM-filter-000000003');
INSERT INTO public.registered_model_tags VALUES ('score', '0.0', 'MM-filter-000000003');
INSERT INTO public.registered_model_tags VALUES ('file_url', 'minio://model-registry/MM-filter-000000003/model.zip', 'MM-filter-000000003');
INSERT INTO public.registered_model_tags VALUES ('id', 'mm-filter-000000004', 'mm-filter-000000004');
INSERT INTO public.registered_model_tags VALUES ('name', 'under_score', 'mm-filter-000000004');
INSERT INTO public.registered_model_tags VALUES ('version', 'v1', 'mm-filter-000000004');
INSERT INTO public.registered_model_tags VALUES ('category', 'Segmentation', 'mm-filter-000000004');
INSERT INTO public.registered_model_tags VALUES ('architecture', 'U-Net', 'mm-filter-000000004');
INSERT INTO public.registered_model_tags VALUES ('size', '1295', 'mm-filter-000000004');
INSERT INTO public.registered_model_tags VALUES ('target_device', 'CPU', 'mm-filter-000000004');
INSERT INTO public.registered_model_tags VALUES ('score', '0.0', 'mm-filter-000000004');
INSERT INTO public.registered_model_tags VALUES ('precision', '[''fp32'']', 'mm-filter-000000004');
INSERT INTO public.registered_model_tags VALUES ('file_url', 'minio://model-registry/mm-filter-000000004/model.zip', 'mm-filter-000000004');
INSERT INTO public.registered_model_tags VALUES ('id', '_u-filter-000000005', '_u-filter-000000005');
INSERT INTO public.registered_model_tags VALUES ('name', 'underXscore', '_u-filter-000000005');
INSERT INTO public.registered_model_tags VALUES ('version', 'V1', '_u-filter-000000005');
INSERT INTO public.registered_model_tags VALUES ('category', 'Anomaly', '_u-filter-000000005');
INSERT INTO public.registered_model_tags VALUES ('precision', '[''int4'']', '_u-filter-000000005');
INSERT INTO public.registered_model_tags VALUES ('size', '1295', '_u-filter-000000005');
INSERT INTO public.registered_model_tags VALUES ('target_device', 'CPU', '_u-filter-000000005');
INSERT INTO public.registered_model_tags VALUES ('score', '0.0', '_u-filter-000000005');
INSERT INTO public.registered_model_tags VALUES ('file_url', 'minio://model-registry/_u-filter-000000005/model.zip', '_u-filter-000000005');
INSERT INTO public.registered_model_tags VALUES ('id', '-d-filter-000000006', '-d-filter-000000006');
INSERT INTO public.registered_model_tags VALUES ('name', 'semi;colon "double" back\slash', '-d-filter-000000006');
INSERT INTO public.registered_model_tags VALUES ('version', '1;2', '-d-filter-000000006');
INSERT INTO public.registered_model_tags VALUES ('project_name', 'A AND B', '-d-filter-000000006');
INSERT INTO public.registered_model_tags VALUES ('size', '1295', '-d-filter-000000006');
INSERT INTO public.registered_model_tags VALUES ('target_device', 'CPU', '-d-filter-000000006');
INSERT INTO public.registered_model_tags VALUES ('score', '0.0', '-d-filter-000000006');
INSERT INTO public.registered_model_tags VALUES ('precision', '[''fp32'']', '-d-filter-000000006');
INSERT INTO public.registered_model_tags VALUES ('file_url', 'minio://model-registry/-d-filter-000000006/model.zip', '-d-filter-000000006');
INSERT INTO public.registered_model_tags VALUES ('id', '00-filter-000000007', '00-filter-000000007');
INSERT INTO public.registered_model_tags VALUES ('name', '模型 É', '00-filter-000000007');
INSERT INTO public.registered_model_tags VALUES ('version', '１', '00-filter-000000007');
INSERT INTO public.registered_model_tags VALUES ('project_name', 'None', '00-filter-000000007');
INSERT INTO public.registered_model_tags VALUES ('size', '1295', '00-filter-000000007');
INSERT INTO public.registered_model_tags VALUES ('target_device', 'CPU', '00-filter-000000007');
INSERT INTO public.registered_model_tags VALUES ('score', '0.0', '00-filter-000000007');
INSERT INTO public.registered_model_tags VALUES ('precision', '[''fp32'']', '00-filter-000000007');
INSERT INTO public.registered_model_tags VALUES ('file_url', 'minio://model-registry/00-filter-000000007/model.zip', '00-filter-000000007');
INSERT INTO public.registered_model_tags VALUES ('id', 'Zz-filter-000000008', 'Zz-filter-000000008');
INSERT INTO public.registered_model_tags VALUES ('name', 'Model AND name = x', 'Zz-filter-000000008');
INSERT INTO public.registered_model_tags VALUES ('version', '1 ', 'Zz-filter-000000008');
INSERT INTO public.registered_model_tags VALUES ('category', '(paren)', 'Zz-filter-000000008');
INSERT INTO public.registered_model_tags VALUES ('architecture', 'a=b', 'Zz-filter-000000008');
INSERT INTO public.registered_model_tags VALUES ('size', '1295', 'Zz-filter-000000008');
INSERT INTO public.registered_model_tags VALUES ('target_device', 'CPU', 'Zz-filter-000000008');
INSERT INTO public.registered_model_tags VALUES ('score', '0.0', 'Zz-filter-000000008');
INSERT INTO public.registered_model_tags VALUES ('precision', '[''fp32'']', 'Zz-filter-000000008');
INSERT INTO public.registered_model_tags VALUES ('file_url', 'minio://model-registry/Zz-filter-000000008/model.zip', 'Zz-filter-000000008');
INSERT INTO public.registered_model_tags VALUES ('id', 'a-filter-0000000009', 'a-filter-0000000009');
INSERT INTO public.registered_model_tags VALUES ('name', 'plain', 'a-filter-0000000009');
INSERT INTO public.registered_model_tags VALUES ('version', '3', 'a-filter-0000000009');
INSERT INTO public.registered_model_tags VALUES ('size', '1295', 'a-filter-0000000009');
INSERT INTO public.registered_model_tags VALUES ('target_device', 'CPU', 'a-filter-0000000009');
INSERT INTO public.registered_model_tags VALUES ('score', '0.0', 'a-filter-0000000009');
INSERT INTO public.registered_model_tags VALUES ('precision', '[''fp32'']', 'a-filter-0000000009');
INSERT INTO public.registered_model_tags VALUES ('file_url', 'minio://model-registry/a-filter-0000000009/model.zip', 'a-filter-0000000009');
INSERT INTO public.registered_model_tags VALUES ('id', 'put-base-0000000001', 'put-base-0000000001');
INSERT INTO public.registered_model_tags VALUES ('size', '77', 'put-base-0000000001');
INSERT INTO public.registered_model_tags VALUES ('version', '3', 'put-base-0000000001');
INSERT INTO public.registered_model_tags VALUES ('target_device', 'NPU', 'put-base-0000000001');
INSERT INTO public.registered_model_tags VALUES ('precision', '[''fp16'']', 'put-base-0000000001');
INSERT INTO public.registered_model_tags VALUES ('score', '1e-07', 'put-base-0000000001');
INSERT INTO public.registered_model_tags VALUES ('name', 'Changed before the failure', 'put-base-0000000001');
INSERT INTO public.registered_model_tags VALUES ('created_date', '2023-01-02 03:04:05', 'put-base-0000000001');
INSERT INTO public.registered_model_tags VALUES ('origin', 'also changed', 'put-base-0000000001');
INSERT INTO public.registered_model_tags VALUES ('project_id', 'proj-2', 'put-base-0000000001');
INSERT INTO public.registered_model_tags VALUES ('project_name', 'Project Two', 'put-base-0000000001');
INSERT INTO public.registered_model_tags VALUES ('category', 'Segmentation', 'put-base-0000000001');
INSERT INTO public.registered_model_tags VALUES ('target_device_type', 'client', 'put-base-0000000001');
INSERT INTO public.registered_model_tags VALUES ('overview', '{''d'': 1}', 'put-base-0000000001');
INSERT INTO public.registered_model_tags VALUES ('format', 'tflite', 'put-base-0000000001');
INSERT INTO public.registered_model_tags VALUES ('file_url', 'minio://model-registry/put-base-0000000001/model.zip', 'put-base-0000000001');
INSERT INTO public.registered_model_tags VALUES ('name', 'Other model', 'put-other-000000002');
INSERT INTO public.registered_model_tags VALUES ('version', '7', 'put-other-000000002');
INSERT INTO public.registered_model_tags VALUES ('target_device', 'GPU', 'put-other-000000002');
INSERT INTO public.registered_model_tags VALUES ('precision', '[''fp16'']', 'put-other-000000002');
INSERT INTO public.registered_model_tags VALUES ('format', 'OpenVINO', 'put-other-000000002');
INSERT INTO public.registered_model_tags VALUES ('score', '0.875', 'put-other-000000002');
INSERT INTO public.registered_model_tags VALUES ('id', 'put-other-000000002', 'put-other-000000002');
INSERT INTO public.registered_model_tags VALUES ('created_date', '2024-02-28 15:39:07.054000', 'put-other-000000002');
INSERT INTO public.registered_model_tags VALUES ('size', '1295', 'put-other-000000002');
INSERT INTO public.registered_model_tags VALUES ('origin', 'Geti', 'put-other-000000002');
INSERT INTO public.registered_model_tags VALUES ('project_id', 'proj-1', 'put-other-000000002');
INSERT INTO public.registered_model_tags VALUES ('project_name', 'Project One', 'put-other-000000002');
INSERT INTO public.registered_model_tags VALUES ('category', 'Detection', 'put-other-000000002');
INSERT INTO public.registered_model_tags VALUES ('target_device_type', 'edge', 'put-other-000000002');
INSERT INTO public.registered_model_tags VALUES ('overview', '{"description":"The description of the model"}', 'put-other-000000002');
INSERT INTO public.registered_model_tags VALUES ('optimization_capabilities', '{"optimization":"accuracy"}', 'put-other-000000002');
INSERT INTO public.registered_model_tags VALUES ('labels', '["class A","class B"]', 'put-other-000000002');
INSERT INTO public.registered_model_tags VALUES ('architecture', 'YOLOX-S', 'put-other-000000002');
INSERT INTO public.registered_model_tags VALUES ('file_url', 'minio://model-registry/put-other-000000002/model.zip', 'put-other-000000002');
INSERT INTO public.registered_model_tags VALUES ('id', 'put-plain-000000003', 'put-plain-000000003');
INSERT INTO public.registered_model_tags VALUES ('size', '1295', 'put-plain-000000003');
INSERT INTO public.registered_model_tags VALUES ('target_device', 'CPU', 'put-plain-000000003');
INSERT INTO public.registered_model_tags VALUES ('score', '0.0', 'put-plain-000000003');
INSERT INTO public.registered_model_tags VALUES ('file_url', 'minio://model-registry/put-plain-000000003/model.zip', 'put-plain-000000003');
INSERT INTO public.registered_model_tags VALUES ('architecture', 'ﬁ', 'put-base-0000000001');
INSERT INTO public.registered_model_tags VALUES ('last_updated_date', '2026-11-23 05:27:20.642091 UTC', 'put-base-0000000001');
INSERT INTO public.registered_model_tags VALUES ('name', 'Other model', 'put-plain-000000003');
INSERT INTO public.registered_model_tags VALUES ('precision', '[''FP16'']', 'put-plain-000000003');
INSERT INTO public.registered_model_tags VALUES ('version', '7', 'put-plain-000000003');
INSERT INTO public.registered_model_tags VALUES ('project_id', 'proj-1', 'put-plain-000000003');
INSERT INTO public.registered_model_tags VALUES ('project_name', 'Project One', 'put-plain-000000003');
INSERT INTO public.registered_model_tags VALUES ('optimization_capabilities', '{''optimization'': ''speed''}', 'put-base-0000000001');
INSERT INTO public.registered_model_tags VALUES ('last_updated_date', '2026-11-23 05:27:20.775512 UTC', 'put-plain-000000003');
INSERT INTO public.registered_model_tags VALUES ('id', 'put-twin-a-00000001', 'put-twin-a-00000001');
INSERT INTO public.registered_model_tags VALUES ('name', 'Twin', 'put-twin-a-00000001');
INSERT INTO public.registered_model_tags VALUES ('size', '1295', 'put-twin-a-00000001');
INSERT INTO public.registered_model_tags VALUES ('target_device', 'CPU', 'put-twin-a-00000001');
INSERT INTO public.registered_model_tags VALUES ('score', '0.0', 'put-twin-a-00000001');
INSERT INTO public.registered_model_tags VALUES ('precision', '[''fp32'']', 'put-twin-a-00000001');
INSERT INTO public.registered_model_tags VALUES ('file_url', 'minio://model-registry/put-twin-a-00000001/model.zip', 'put-twin-a-00000001');
INSERT INTO public.registered_model_tags VALUES ('id', 'put-twin-b-00000002', 'put-twin-b-00000002');
INSERT INTO public.registered_model_tags VALUES ('name', 'Twin', 'put-twin-b-00000002');
INSERT INTO public.registered_model_tags VALUES ('version', '2', 'put-twin-b-00000002');
INSERT INTO public.registered_model_tags VALUES ('size', '1295', 'put-twin-b-00000002');
INSERT INTO public.registered_model_tags VALUES ('target_device', 'CPU', 'put-twin-b-00000002');
INSERT INTO public.registered_model_tags VALUES ('score', '0.0', 'put-twin-b-00000002');
INSERT INTO public.registered_model_tags VALUES ('precision', '[''fp32'']', 'put-twin-b-00000002');
INSERT INTO public.registered_model_tags VALUES ('file_url', 'minio://model-registry/put-twin-b-00000002/model.zip', 'put-twin-b-00000002');
INSERT INTO public.registered_model_tags VALUES ('format', 'onnx', 'put-twin-a-00000001');
INSERT INTO public.registered_model_tags VALUES ('version', '2', 'put-twin-a-00000001');
INSERT INTO public.registered_model_tags VALUES ('project_name', 'P', 'put-twin-a-00000001');
INSERT INTO public.registered_model_tags VALUES ('last_updated_date', '2026-11-23 05:27:20.934078 UTC', 'put-twin-a-00000001');
INSERT INTO public.registered_model_tags VALUES ('format', 'x', 'put-twin-b-00000002');
INSERT INTO public.registered_model_tags VALUES ('last_updated_date', '2026-11-23 05:27:20.963965 UTC', 'put-twin-b-00000002');
INSERT INTO public.registered_model_tags VALUES ('target_device', 'CPU', '66c10000000000000000a111');
INSERT INTO public.registered_model_tags VALUES ('created_date', '2025-07-01T10:20:30.405000+00:00', '66c10000000000000000a111');
INSERT INTO public.registered_model_tags VALUES ('precision', '[''FP16'']', '66c10000000000000000a111');
INSERT INTO public.registered_model_tags VALUES ('project_id', '65f0a1b2c3d4e5f600000001', '66c10000000000000000a111');
INSERT INTO public.registered_model_tags VALUES ('size', '18350080', '66c10000000000000000a111');
INSERT INTO public.registered_model_tags VALUES ('id', '66c10000000000000000a111', '66c10000000000000000a111');
INSERT INTO public.registered_model_tags VALUES ('name', 'YOLOX-S OpenVINO FP16', '66c10000000000000000a111');
INSERT INTO public.registered_model_tags VALUES ('version', '1', '66c10000000000000000a111');
INSERT INTO public.registered_model_tags VALUES ('format', 'openvino', '66c10000000000000000a111');
INSERT INTO public.registered_model_tags VALUES ('labels', '[''["x", "y"]'']', 'put-base-0000000001');
INSERT INTO public.registered_model_tags VALUES ('origin', 'Geti', '66c10000000000000000a111');
INSERT INTO public.registered_model_tags VALUES ('file_url', 'minio://model-registry/66c10000000000000000a111/cattle-detection-v12.zip', '66c10000000000000000a111');
INSERT INTO public.registered_model_tags VALUES ('project_name', 'Cattle Detection v1.2', '66c10000000000000000a111');
INSERT INTO public.registered_model_tags VALUES ('category', 'Detection', '66c10000000000000000a111');
INSERT INTO public.registered_model_tags VALUES ('target_device_type', 'None', '66c10000000000000000a111');
INSERT INTO public.registered_model_tags VALUES ('score', '0.79', '66c10000000000000000a111');
INSERT INTO public.registered_model_tags VALUES ('overview', 'None', '66c10000000000000000a111');
INSERT INTO public.registered_model_tags VALUES ('optimization_capabilities', '{''is_nncf_supported'': False}', '66c10000000000000000a111');
INSERT INTO public.registered_model_tags VALUES ('labels', '[{''id'': ''65f0a1b2c3d4e5f6000001a0'', ''name'': ''cow'', ''is_empty'': False, ''color'': ''#25a18eff''}, {''id'': ''65f0a1b2c3d4e5f6000001a1'', ''name'': ''sheep'', ''is_empty'': False, ''color'': ''#f15b85ff''}]', '66c10000000000000000a111');
INSERT INTO public.registered_model_tags VALUES ('architecture', 'YOLOX-S', '66c10000000000000000a111');
INSERT INTO public.registered_model_tags VALUES ('name', 'Poisoned', 'legacy-poison-0001');
INSERT INTO public.registered_model_tags VALUES ('version', '1', 'legacy-poison-0001');
INSERT INTO public.registered_model_tags VALUES ('overview', '{"reviewed": true}', 'legacy-poison-0001');
INSERT INTO public.registered_model_tags VALUES ('id', 'legacy-poison-0001', 'legacy-poison-0001');
INSERT INTO public.registered_model_tags VALUES ('size', '1295', 'legacy-poison-0001');
INSERT INTO public.registered_model_tags VALUES ('target_device', 'CPU', 'legacy-poison-0001');
INSERT INTO public.registered_model_tags VALUES ('score', '0.0', 'legacy-poison-0001');
INSERT INTO public.registered_model_tags VALUES ('precision', '[''fp32'']', 'legacy-poison-0001');
INSERT INTO public.registered_model_tags VALUES ('file_url', 'minio://model-registry/legacy-poison-0001/model.zip', 'legacy-poison-0001');


--
-- Data for Name: registered_models; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.registered_models VALUES ('zz-filter-000000001', 1795411638644, 1795411638644, NULL);
INSERT INTO public.registered_models VALUES ('aa-filter-000000002', 1795411638666, 1795411638666, NULL);
INSERT INTO public.registered_models VALUES ('MM-filter-000000003', 1795411638682, 1795411638682, NULL);
INSERT INTO public.registered_models VALUES ('mm-filter-000000004', 1795411638698, 1795411638698, NULL);
INSERT INTO public.registered_models VALUES ('_u-filter-000000005', 1795411638714, 1795411638714, NULL);
INSERT INTO public.registered_models VALUES ('-d-filter-000000006', 1795411638733, 1795411638733, NULL);
INSERT INTO public.registered_models VALUES ('00-filter-000000007', 1795411638753, 1795411638753, NULL);
INSERT INTO public.registered_models VALUES ('Zz-filter-000000008', 1795411638773, 1795411638773, NULL);
INSERT INTO public.registered_models VALUES ('a-filter-0000000009', 1795411638794, 1795411638794, NULL);
INSERT INTO public.registered_models VALUES ('put-base-0000000001', 1795411639394, 1795411639394, NULL);
INSERT INTO public.registered_models VALUES ('put-other-000000002', 1795411639414, 1795411639414, NULL);
INSERT INTO public.registered_models VALUES ('put-plain-000000003', 1795411639435, 1795411639435, NULL);
INSERT INTO public.registered_models VALUES ('put-twin-a-00000001', 1795411640794, 1795411640794, NULL);
INSERT INTO public.registered_models VALUES ('put-twin-b-00000002', 1795411640816, 1795411640816, NULL);
INSERT INTO public.registered_models VALUES ('66c10000000000000000a111', 1795411641071, 1795411641071, NULL);
INSERT INTO public.registered_models VALUES ('legacy-poison-0001', 1795411641107, 1795411641107, NULL);


--
-- Name: alembic_version alembic_version_pkc; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.alembic_version
    ADD CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num);


--
-- Name: model_versions model_version_pk; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.model_versions
    ADD CONSTRAINT model_version_pk PRIMARY KEY (name, version);


--
-- Name: model_version_tags model_version_tag_pk; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.model_version_tags
    ADD CONSTRAINT model_version_tag_pk PRIMARY KEY (key, name, version);


--
-- Name: registered_model_aliases registered_model_alias_pk; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.registered_model_aliases
    ADD CONSTRAINT registered_model_alias_pk PRIMARY KEY (name, alias);


--
-- Name: registered_models registered_model_pk; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.registered_models
    ADD CONSTRAINT registered_model_pk PRIMARY KEY (name);


--
-- Name: registered_model_tags registered_model_tag_pk; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.registered_model_tags
    ADD CONSTRAINT registered_model_tag_pk PRIMARY KEY (key, name);


--
-- Name: model_version_tags model_version_tags_name_version_fkey; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.model_version_tags
    ADD CONSTRAINT model_version_tags_name_version_fkey FOREIGN KEY (name, version) REFERENCES public.model_versions(name, version) ON UPDATE CASCADE;


--
-- Name: model_versions model_versions_name_fkey; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.model_versions
    ADD CONSTRAINT model_versions_name_fkey FOREIGN KEY (name) REFERENCES public.registered_models(name) ON UPDATE CASCADE;


--
-- Name: registered_model_aliases registered_model_alias_name_fkey; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.registered_model_aliases
    ADD CONSTRAINT registered_model_alias_name_fkey FOREIGN KEY (name) REFERENCES public.registered_models(name) ON UPDATE CASCADE ON DELETE CASCADE;


--
-- Name: registered_model_tags registered_model_tags_name_fkey; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.registered_model_tags
    ADD CONSTRAINT registered_model_tags_name_fkey FOREIGN KEY (name) REFERENCES public.registered_models(name) ON UPDATE CASCADE;


--
-- PostgreSQL database dump complete
--


